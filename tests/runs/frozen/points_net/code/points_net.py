"""A small net with every kind of state, on the four points of XOR.

It lies here as the runs of this format do, so that a later version is tried on it: see
tests/runs/test_frozen.py.
"""

from functools import partial

import optax
from flax import linen as nn

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.xor import Xor
from jaxcnn.tasks.binary import BinaryClassification


class PointsNet(nn.Module):
    """Points [B, 2], logits [B, 1]."""

    @nn.compact
    def __call__(self, point, *, train: bool):
        x = nn.Dense(8, use_bias=False)(point)
        x = nn.tanh(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(1)(x)


experiment = Experiment(
    model=PointsNet(),
    task=BinaryClassification(inputs=("point",)),
    data=Xor(),
    optimizer=partial(optax.adamw, learning_rate=0.02),
    clip_norm=1.0,
    batch_size=4,
    steps=60,
    eval_every=10.0,
    log_every=10,
    ema=0.9,
)
