"""Which learning rate? The modern LeNet-5 on Fashion-MNIST, four rates with four seeds each, sixteen replicas in one program."""

from functools import partial

from jaxcnn import optimizers, schedules
from jaxcnn.data import augment
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.lenet import LeNet5Modern
from jaxcnn.sweep import grid
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=LeNet5Modern(),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train", eval="test"),
    augment=(augment.flip_left_right,),
    optimizer=partial(optimizers.sgd, learning_rate=0.05, momentum=0.9, weight_decay=5e-4, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=3,
    log_every=200,
)


def sweep():
    """Four learning rates, four seeds each."""
    return grid(optimizer__learning_rate=(0.0125, 0.025, 0.05, 0.1), seed=range(4))
