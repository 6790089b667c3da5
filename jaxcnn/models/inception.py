"""Inception v3: factorized convolutions in parallel branches.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), table 1 and
figures 5 to 7, with the widths of the authors' released network. Input [B, H, W, 3] float in about
[-1, 1] (299x299 as published, at least 75x75); output [B, num_classes] logits.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import avg_pool, max_pool
from jaxcnn.layers.conv_norm import ConvNorm

Unit = partial(ConvNorm, epsilon=1e-3)


class Mixed(nn.Module):
    """Parallel branches on one map, concatenated: [B, H, W, C] -> [B, H', W', sum of the branches].

    A branch is a tuple of units (name, features, kernel); a pair of units in the last place forks,
    and both outputs are kept. `pool` features of 1x1 convolution follow a 3x3 average pooling; 0
    halves the resolution: the last unit of each branch has stride 2 without padding, beside a 3x3
    max pooling.
    """

    branches: tuple
    pool: int = 0

    @nn.compact
    def __call__(self, x, *, train: bool):
        outputs = []
        for *inner, last in self.branches:
            y = x
            for name, features, kernel in inner:
                y = Unit(features, kernel, name=name)(y, train=train)
            for name, features, kernel in last if isinstance(last[0], tuple) else (last,):
                ending = {} if self.pool else {"strides": 2, "padding": "VALID"}
                outputs.append(Unit(features, kernel, name=name, **ending)(y, train=train))
        if self.pool:
            pooled = avg_pool(x, (3, 3), strides=(1, 1), padding=((1, 1), (1, 1)))
            outputs.append(Unit(self.pool, 1, name="branch_pool")(pooled, train=train))
        else:
            outputs.append(max_pool(x, (3, 3), strides=(2, 2)))
        return jnp.concatenate(outputs, -1)


def mixed_a(pool: int) -> tuple[tuple, int]:
    """Figure 5: 5x5 convolutions beside two stacked 3x3 ones."""
    five = (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5))
    double = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    return ((("branch1x1", 64, 1),), five, double), pool


def mixed_c(width: int) -> tuple[tuple, int]:
    """Figure 6: 7x7 convolutions factorized into 1x7 and 7x1."""
    row, column = (1, 7), (7, 1)
    seven = (("branch7x7_1", width, 1), ("branch7x7_2", width, row), ("branch7x7_3", 192, column))
    kernels = (1, column, row, column, row)
    double = tuple(
        (f"branch7x7dbl_{i}", 192 if i == 5 else width, kernel)
        for i, kernel in enumerate(kernels, 1)
    )
    return ((("branch1x1", 192, 1),), seven, double), 192


MIXED_B = (
    (("branch3x3", 384, 3),),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
)
MIXED_D = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)),
    (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3),
    ),
)
MIXED_E = (  # figure 7
    (("branch1x1", 320, 1),),
    (("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))),
    (
        ("branch3x3dbl_1", 448, 1),
        ("branch3x3dbl_2", 384, 3),
        (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
    ),
)
STAGES = (
    {"5b": mixed_a(32), "5c": mixed_a(64), "5d": mixed_a(64)},
    {
        "6a": (MIXED_B, 0),
        "6b": mixed_c(128),
        "6c": mixed_c(160),
        "6d": mixed_c(160),
        "6e": mixed_c(192),
    },
    {"7a": (MIXED_D, 0), "7b": (MIXED_E, 192), "7c": (MIXED_E, 192)},
)


class AuxiliaryHead(nn.Module):
    """A classifier on the 17x17 map, for training alone (section 4): [B, H, W, 768] -> [B,
    num_classes]; H, W at least 17.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = avg_pool(x, (5, 5), strides=(3, 3))
        x = Unit(128, 1, name="conv0")(x, train=train)
        x = Unit(768, 5, padding="VALID", name="conv1")(x, train=train)
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


class InceptionV3(nn.Module):
    """Inception v3. Output [B, num_classes] logits; in training with `auxiliary_head` the pair
    (logits, those of the auxiliary head); with `num_classes=0` pooled features [B, 2048]; with
    `pyramid=True` the maps of strides 4, 8, 16, 32, and no head.
    """

    num_classes: int = 1000
    auxiliary_head: bool = True
    dropout: float = 0.5
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        auxiliary = self.auxiliary_head and self.num_classes > 0 and not self.pyramid
        require_image(
            "InceptionV3",
            image,
            at_least=299 if auxiliary and (train or self.is_initializing()) else 75,
        )
        x = Unit(32, 3, 2, "VALID", name="conv_1a_3x3")(image, train=train)
        x = Unit(32, 3, padding="VALID", name="conv_2a_3x3")(x, train=train)
        x = Unit(64, 3, name="conv_2b_3x3")(x, train=train)
        x = max_pool(x, (3, 3), strides=(2, 2))
        x = Unit(80, 1, name="conv_3b_1x1")(x, train=train)
        x = Unit(192, 3, padding="VALID", name="conv_4a_3x3")(x, train=train)
        maps, auxiliary_logits = [x], None
        x = max_pool(x, (3, 3), strides=(2, 2))
        for stage in STAGES:
            for name, (branches, pool) in stage.items():
                x = Mixed(branches, pool, name=f"mixed_{name}")(x, train=train)
            maps.append(x)
            if auxiliary and "6e" in stage and (train or self.is_initializing()):
                auxiliary_logits = AuxiliaryHead(self.num_classes, name="auxiliary")(x, train=train)
        if self.pyramid:
            return tuple(maps)
        x = x.mean((1, 2))  # [B, 2048]
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(self.num_classes, name="head")(x)
        return (logits, auxiliary_logits) if auxiliary and train else logits


def inception_v3(*, num_classes: int = 1000, **fields) -> InceptionV3:
    """Inception v3, 27,161,264 parameters with the auxiliary head, 23,834,568 without."""
    return InceptionV3(num_classes, **fields)
