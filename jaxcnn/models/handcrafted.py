"""One layer of filters, handcrafted or learned, and a linear classifier. Images [B, H, W, C] in [0,
1], output [B, K] logits.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.conv import Conv, avg_pool
from jaxcnn.layers.fixed_filters import FixedFilters, rectify
from jaxcnn.ops import filters


class FilterBankNet(nn.Module):
    """Filters -> rectification -> average over cells -> each cell scaled to length 1 -> linear
    layer.

    With `filters.steered` and `rectify="relu"` these are soft histograms of oriented gradients
    (HOG), blocks of one cell: Dalal, Triggs,
    "Histograms of Oriented Gradients for Human Detection", 2005, section 6. `learned=True` puts as
    many learned filters of the same size, with biases, in the place of the handcrafted ones and
    changes nothing else: features by design against learning end to end.
    """

    num_classes: int = 10
    kernels: Callable[[], np.ndarray] = partial(filters.gabor_bank, orientations=4, radius=2)
    learned: bool = False
    rectify: str = "split"
    cell: tuple[int, int] = (4, 4)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        if min(image.shape[1] // self.cell[0], image.shape[2] // self.cell[1]) < 1:
            raise ConfigError(
                f"FilterBankNet: cells of {self.cell} pixels do not fit into images "
                f"{tuple(image.shape)}; make them smaller"
            )
        if self.learned:
            *size, count = self.kernels().shape
            # As many filters a channel as the handcrafted bank has, each seeing all channels.
            x = Conv(
                count * image.shape[-1],
                size,
                kernel_init=nn.initializers.he_normal(),
                name="filters",
            )(image)
        else:
            x = FixedFilters(self.kernels, name="filters")(image)
        x = avg_pool(rectify(x, self.rectify), self.cell)  # [B, H / 4, W / 4, maps]
        # Epsilon: an even cell stays near 0 instead of having its noise blown up.
        x = x / jnp.sqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-2**2)
        return nn.Dense(self.num_classes, name="output")(x.reshape(x.shape[0], -1))
