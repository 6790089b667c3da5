"""The modern LeNet-5 (ReLU, max-pooling, softmax), on MNIST."""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data import augment
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.lenet import LeNet5Modern
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=LeNet5Modern(),
    task=Classification(num_classes=10),
    data=Tfds("mnist", train="train", eval="test"),
    augment=(partial(augment.shift, pixels=1),),
    optimizer=partial(optax.adamw, learning_rate=2e-3, weight_decay=0.05, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=20,
    log_every=100,
)
