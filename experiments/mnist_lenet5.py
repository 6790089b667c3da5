"""LeNet-5 as published in 1998, on MNIST."""

from functools import partial

from jaxcnn import optimizers, schedules
from jaxcnn.data import augment
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.lenet import LeNet5
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=LeNet5(),
    task=Classification(num_classes=10, rubbish_penalty=0.1),
    data=Tfds("mnist", train="train", eval="test"),
    augment=(partial(augment.shift, pixels=1),),
    optimizer=partial(optimizers.sgd, learning_rate=0.002, momentum=0.9),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=20,
    log_every=100,
)
