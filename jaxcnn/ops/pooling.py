"""Pooling over channels-last arrays [B, *spatial, C]; `window`, `strides` are tuples over the spatial axes, `padding` as in Flax."""

from flax import linen as nn


def max_pool(x, window, strides=None, padding="VALID"):
    """Largest value of each window; `strides` defaults to `window` (no overlap). [B, *spatial, C] -> [B, *smaller, C]."""
    return nn.max_pool(x, window, strides or window, padding)


def avg_pool(x, window, strides=None, padding="VALID", *, count_include_pad=True):
    """Mean of each window; `strides` defaults to `window`. [B, *spatial, C] -> [B, *smaller, C]."""
    return nn.avg_pool(x, window, strides or window, padding, count_include_pad)
