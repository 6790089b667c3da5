"""The Fashion CNN (64@7x7, 2x128@3x3, 2x256@3x3, two dense layers with dropout), on Fashion-MNIST."""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data import augment
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.fashion import FashionCNN
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=FashionCNN(),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train", eval="test"),
    augment=(augment.flip_left_right,),
    optimizer=partial(optax.adamw, learning_rate=1e-3, weight_decay=0.02, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=64,
    epochs=9,
    log_every=200,
)
