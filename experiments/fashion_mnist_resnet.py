"""ResNet-8 (the CIFAR network of He et al. 2016 with one block a stage, 78,000 parameters), on Fashion-MNIST."""

from functools import partial

from jaxcnn import optimizers, schedules
from jaxcnn.data import augment
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.resnet import resnet_cifar
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=resnet_cifar(depth=8),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train", eval="test"),
    augment=(augment.flip_left_right, partial(augment.shift, pixels=2)),
    optimizer=partial(optimizers.sgd, learning_rate=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4, mask=optimizers.kernels),
    schedule=partial(schedules.triangular, peak_at=0.3),
    batch_size=128,
    epochs=6,
    log_every=100,
)
