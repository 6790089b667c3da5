"""A dense network, 784-256-10, on MNIST: against mnist_convolution.py, parameters and multiplications at equal accuracy."""

from functools import partial

import optax

from jaxcnn import schedules
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.mlp import MLP
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=MLP(features=(256, 10), activation="relu"),
    task=Classification(num_classes=10),
    data=Tfds("mnist", train="train", eval="test"),
    optimizer=partial(optax.adam, learning_rate=2e-3),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=3,
    log_every=100,
)
