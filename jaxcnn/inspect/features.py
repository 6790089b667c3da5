"""What single channels look for: the filters of the first layer, and the patches that make a
channel answer most. Feature maps themselves are `jaxcnn.inspect.taps.layer_output`.

M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks", 2014, section 4;
R. Girshick et al., "Rich feature hierarchies for accurate object detection", 2014, section 3.1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn.errors import ConfigError
from jaxcnn.inspect.taps import Network, layers_of, parameters_of
from jaxcnn.inspect.views import View


class Best(NamedTuple):
    """The best answer of each channel to each picture, [B, K] each: `value` float32, `row` and
    `column` int32, the place in the layer's map (the first of equals).
    """

    value: jax.Array
    row: jax.Array
    column: jax.Array


def first_filters(network: Network, images: jax.Array) -> tuple[str, jax.Array]:
    """(name, kernel [h, w, C, K]) of the first layer that convolves the pictures; of `images` only
    shape and dtype count. Errors: ConfigError for a network without learned convolutions.
    """
    calls = layers_of(network, images)
    name = next((seen.name for seen in calls if len(seen.kernel) == 4), None)
    if name is None:
        raise ConfigError(
            "filters: this model has no layer with a learned kernel [height, width, inputs, "
            "outputs]; take another method"
        )
    return name, parameters_of(network, images, layer=name)["kernel"]


def best_places(maps: jax.Array) -> Best:
    """Where each channel answers most to each picture. Maps [B, h, w, K] -> [B, K]"""
    batch, _, width, channels = maps.shape
    flat = maps.reshape(batch, -1, channels)
    place = jnp.argmax(flat, axis=1).astype(jnp.int32)
    value = jnp.take_along_axis(flat, place[:, None], axis=1)[:, 0]
    return Best(value.astype(jnp.float32), place // width, place % width)


def seen_pixels(view: View, place: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of a picture of `size` (height, width) that a place (row, column) of a
    map sees, see `taps.layer_view`; without the padding around the picture. After a transposed
    convolution places differ in how many pixels they see; some may be here that this one does not.
    """
    slices = []
    for axis, index, side in zip(view, place, size, strict=True):
        start = 0 if axis.shared or axis.dim is None else axis.stride * index
        low, high = math.ceil(start + axis.low), math.floor(start + axis.high + axis.slack)
        low = min(max(low, 0), side - 1)  # a place that sees padding alone: the pixel next to it
        slices.append(slice(low, max(min(high, side - 1), low) + 1))
    return slices[0], slices[1]
