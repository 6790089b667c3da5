"""The Fashion CNN (64@7x7, 2x128@3x3, 2x256@3x3, two dense layers with dropout), on Fashion-MNIST.

    python launch.py train experiments/fashion_mnist_cnn.py

Expected: 92.55 % on all 10,000 test images (n = 1: one run takes over 10 minutes here) after 9
epochs with flips; 35 min on two busy cores (264 images/s) with jaxcnn[onednn]; 2026-11-22, 2 cores
of an Intel Xeon (AVX-512) shared with other work.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
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
