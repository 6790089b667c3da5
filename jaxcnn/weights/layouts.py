"""How other frameworks lay out and name the arrays of a layer, and how one becomes ours.

Layouts are turned by rank: convolution [O, I, *window] -> [*window, I, O], dense [O, I] -> [I, O],
both of PyTorch; Keras has ours but for depthwise kernels. BatchNorm's weight, bias, running_mean,
running_var are our scale, bias, mean, var.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcnn.errors import ConfigError, did_you_mean

# What each framework calls the leaves of a layer. A name that fits several of ours takes the one
# that our layer has.
LEAF_NAMES = {
    "weight": ("kernel", "scale", "embedding"),
    "bias": ("bias",),
    "running_mean": ("mean",),
    "running_var": ("var",),
    "gamma": ("scale", "layer_scale"),
    "beta": ("bias",),
    "moving_mean": ("mean",),
    "moving_variance": ("var",),
    "depthwise_kernel": ("kernel",),
}
LAYOUTS = ("torch", "keras")


def our_path(path: str, ours: Mapping[str, Any], source: str) -> str:
    """The path of our leaf for a translated source path, whose last part is still the source's leaf
    name (or already ours).
    """
    if (found := find_path(path, ours)) is not None:
        return found
    raise ConfigError(
        f"weights: the rules send {source!r} to {path!r}, which the model does not "
        f"have{did_you_mean(path, ours)}"
    )


def find_path(path: str, ours: Mapping[str, Any]) -> str | None:
    """`our_path`, or None where we have none."""
    layer, _, leaf = path.replace(".", "/").rpartition("/")
    for name in (leaf, *LEAF_NAMES.get(leaf, ())):
        for candidate in (f"{layer}/{name}".lstrip("/"), f"batch_stats/{layer}/{name}"):
            if candidate in ours:
                return candidate
    return None


def fit(
    array: np.ndarray,
    target: Any,
    path: str,
    name: str,
    layout: str,
    flattened: tuple[int, int, int] | None,
    head: str,
) -> tuple[np.ndarray, str]:
    """The array of the source's `name` in the shape of our leaf `target`, which is at `path`.

    Returns (array, what was done to it): "" if it fits; "adapted", a first layer for RGB in another
    channel count; "new_head", another class count (nothing was done).
    Errors: ConfigError if it does not fit.
    """
    value = _to_our_layout(array, target.shape, path, layout, flattened)
    if value.shape == target.shape:
        return value, ""
    if _is_first_convolution(value, target):
        return _adapt_channels(value, target.shape[-2]), "adapted"
    if f"/{head}/" in f"/{path}" and value.shape[:-1] == target.shape[:-1]:
        return value, "new_head"
    raise ConfigError(
        f"weights: {name!r} has shape {array.shape}, which does not fit {path!r} with shape "
        f"{target.shape}; choose the model that these weights belong to, or other rules"
    )


def _to_our_layout(
    array: np.ndarray,
    shape: tuple[int, ...],
    path: str,
    layout: str,
    flattened: tuple[int, int, int] | None,
) -> np.ndarray:
    """A source's array in our layout; of the wrong shape where nothing fits, for the caller to
    report.
    """
    if layout == "torch" and path.endswith("kernel") and array.ndim >= 2:
        if flattened is not None and array.size % math.prod(flattened) == 0:
            array = array.reshape(-1, *flattened)  # [O, C, H, W]
        array = np.moveaxis(array, (0, 1), (-1, -2))  # [*window, I, O]
        # a window as large as its map is a dense layer on the flattened map
        if len(shape) == 2 and array.size == math.prod(shape):
            array = array.reshape(shape)
    if (
        layout == "keras"
        and array.ndim == len(shape) == 4
        and shape[-2] == 1
        and array.shape[-2] * array.shape[-1] == shape[-1]
    ):
        return array.reshape(shape)  # depthwise [H, W, C, multiplier]
    same_but_ones = [n for n in array.shape if n != 1] == [n for n in shape if n != 1]
    return array.reshape(shape) if same_but_ones else array


def _is_first_convolution(value: np.ndarray, target: Any) -> bool:
    """Whether a kernel differs from ours in the channel count of an RGB input alone."""
    fits = (
        value.ndim == target.ndim >= 3
        and value.shape[:-2] == target.shape[:-2]
        and value.shape[-1] == target.shape[-1]
    )
    return fits and value.shape[-2] == 3


def _adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """[*window, 3, O] -> [*window, channels, O]: summed for grey images, so that grey as RGB gives
    the same; else repeated and scaled.
    """
    if channels == 1:
        return kernel.sum(-2, keepdims=True)
    repeats = -(-channels // 3)
    return np.concatenate([kernel] * repeats, axis=-2)[..., :channels, :] * (3 / channels)
