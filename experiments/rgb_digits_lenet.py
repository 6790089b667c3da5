"""The RGB digit network of the course notes (32x32x3, 6@5x5, 16@5x5, 120, 84, softmax), on MNIST
digits in colour.

    python launch.py train experiments/rgb_digits_lenet.py

Expected: 98.95 ± 0.06 % on all 10,000 test images (n = 3 seeds) after 10 epochs; 4 to 5 min on two
busy cores; 2026-11-22, 2 cores of an Intel Xeon (AVX-512) shared with other work. The digits are
painted: every one has an ink and a paper colour.
"""

from functools import partial

import jax.numpy as jnp
import optax

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.lenet import RGBDigitNet
from jaxcnn.tasks.classification import Classification


def paint(batch):
    """Give each grey digit [H, W, 1] an ink and a paper colour of its own, [H, W, 3]: fixed
    functions of the picture, for all epochs.
    """
    grey = batch["image"]
    # [B, 1]; sums of 784 pixels: their fractions are as good as random
    amount = grey.sum((1, 2, 3))[:, None]
    phase = jnp.array([[0.0, 1.0, 2.0]]) / 3.0
    ink = 0.65 + 0.35 * jnp.cos(2 * jnp.pi * (amount * 1.618 + phase))
    paper = 0.15 + 0.15 * jnp.cos(2 * jnp.pi * (amount * 2.718 + phase))
    image = grey * ink[:, None, None, :] + (1 - grey) * paper[:, None, None, :]
    return {**batch, "image": image}


experiment = Experiment(
    model=RGBDigitNet(),
    task=Classification(num_classes=10),
    data=Tfds("mnist", train="train", eval="test"),
    transform=(partial(augment.resize, size=(32, 32)), paint),
    optimizer=partial(optax.rmsprop, learning_rate=1e-3, decay=0.9),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=10,
    log_every=100,
)
