"""Layers that Flax lacks, or that must go through jaxcnn's seams. Arrays are channels last, [B,
*spatial, C].
"""

from jaxcnn.layers.activations import ACTIVATIONS, INCREASING, activation, scaled_tanh
from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.checks import require_image
from jaxcnn.layers.connection_table import ConnectionTableConv
from jaxcnn.layers.conv import Conv, avg_pool, max_pool
from jaxcnn.layers.fixed_filters import FixedFilters, rectify
from jaxcnn.layers.local_response_norm import LRN
from jaxcnn.layers.rbf import DIGIT_BITMAPS, RBF, bitmap_targets
from jaxcnn.layers.subsampling import Subsampling

__all__ = [
    "ACTIVATIONS",
    "DIGIT_BITMAPS",
    "INCREASING",
    "LRN",
    "RBF",
    "BatchNorm",
    "ConnectionTableConv",
    "Conv",
    "FixedFilters",
    "Subsampling",
    "activation",
    "avg_pool",
    "bitmap_targets",
    "max_pool",
    "rectify",
    "require_image",
    "scaled_tanh",
]
