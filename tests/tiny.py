"""A tiny experiment with everything that has state: BatchNorm, dropout, augmentation, EMA,
clipping, a schedule.
"""

import dataclasses
import os
import signal
from functools import partial

import numpy as np
import optax
from flax import linen as nn

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.memory import Arrays
from jaxcnn.layers import Conv, max_pool
from jaxcnn.runs.train import train
from jaxcnn.runs.writers import Console
from jaxcnn.tasks.classification import Classification


class TinyNet(nn.Module):
    """Convolution, BatchNorm, pooling, dropout, linear; images [B, 8, 8, 1]."""

    width: int = 4
    num_classes: int = 3
    dropout: float = 0.25

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = Conv(self.width, (3, 3), use_bias=False)(image)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = max_pool(nn.relu(x), (2, 2)).reshape(image.shape[0], -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x)


def arrays(size: int, seed: int = 0, classes: int = 3) -> dict:
    """Images whose brightness in one row tells the class, with noise."""
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, size).astype(np.int32)
    image = random.integers(0, 120, (size, 8, 8, 1))
    image[np.arange(size), label * 2] += 100
    return {"image": image.astype(np.uint8), "label": label}


def tiny(**fields) -> Experiment:
    base = Experiment(
        model=TinyNet(),
        task=Classification(num_classes=3),
        data=Arrays(train=arrays(50), eval=arrays(21, seed=1)),
        optimizer=partial(optax.adamw, learning_rate=0.01, weight_decay=0.01),
        schedule=partial(schedules.cosine, warmup=0.2),
        augment=(partial(augment.shift, pixels=1),),
        batch_size=8,
        steps=12,
        eval_every=0.8,
        clip_norm=1.0,
        ema=0.9,
        log_every=1,
    )
    return dataclasses.replace(base, **fields)


def fit(e, folder, **options) -> dict:
    """Train quietly; the summary."""
    return train(e, folder, quiet=True, **options).summary


def stop_at(step, number=signal.SIGTERM):
    """An observer that sends this process a real signal as soon as a given step is logged."""

    sent = []

    def observe(event):
        if event.kind == "train" and event.step == step and not sent:  # once, for all replicas
            sent.append(event)
            os.kill(os.getpid(), number)

    return observe


class Lines(Console):
    """A console that keeps its lines."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def line(self, text):
        self.lines.append(text)
