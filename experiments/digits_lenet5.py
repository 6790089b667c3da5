"""LeNet-5 as published in 1998, on scikit-learn's 8x8 digits."""

from functools import partial

from jaxcnn import optimizers, schedules
from jaxcnn.data import augment
from jaxcnn.data.digits import Digits
from jaxcnn.experiment import Experiment
from jaxcnn.models.lenet import LeNet5
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=LeNet5(),
    task=Classification(num_classes=10, rubbish_penalty=0.1),
    data=Digits(),
    augment=(partial(augment.affine, degrees=8.0),),
    optimizer=partial(optimizers.sgd, learning_rate=0.002, momentum=0.9),
    schedule=partial(schedules.cosine, warmup=0.1),
    batch_size=64,
    epochs=40,
    eval_every=5,
)
