"""Convolution with a table of connections: each output map sees only some input maps. [B, H, W, C]
-> [B, H', W', K].
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxcnn.errors import ConfigError
from jaxcnn.ops import convolution


class ConnectionTableConv(nn.Module):
    """2-D convolution (stride 1) whose output map k is connected to the input maps `table[k]` and
    to no other.

    Only the connected kernels exist as parameters: "kernel" [*kernel_size, connections], in the
    order of the table, and "bias" [K]. Weights start uniform in ±`init_scale` / fan-in, the fan-in
    counted for each output map by itself.
    Source: LeCun, Bottou, Bengio, Haffner 1998, section II-B and table I (layer C3), weights:
    section II-B at the end of F6's description.
    """

    table: tuple[tuple[int, ...], ...]
    kernel_size: tuple[int, int] = (5, 5)
    padding: Any = "VALID"
    init_scale: float = 2.4

    def _connections(self) -> tuple[np.ndarray, np.ndarray]:
        """Input map and output map of every connection."""
        pairs = [
            (source, target) for target, sources in enumerate(self.table) for source in sources
        ]
        if len(set(pairs)) != len(pairs) or not all(self.table):
            raise ConfigError(
                f"ConnectionTableConv: table {self.table} must name at least one input map for "
                "each output map, and none twice"
            )
        sources, targets = np.array(pairs).T
        return sources, targets

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        sources, targets = self._connections()
        in_features, features = x.shape[-1], len(self.table)
        if not 0 <= sources.min() <= sources.max() < in_features:
            raise ConfigError(
                f"ConnectionTableConv: table names input maps {sources.min()}..{sources.max()}, "
                f"the input has 0..{in_features - 1}"
            )
        fan_in = np.bincount(targets) * math.prod(self.kernel_size)
        bound = np.asarray(self.init_scale / fan_in, np.float32)

        def uniform(limit):
            limit = np.asarray(limit)
            return lambda key, shape: (
                jax.random.uniform(key, shape, minval=-1, maxval=1) * np.broadcast_to(limit, shape)
            )

        kernel = self.param("kernel", uniform(bound[targets]), (*self.kernel_size, len(sources)))
        bias = self.param("bias", uniform(bound), (features,))
        x, kernel, bias = promote_dtype(x, kernel, bias)
        dense = (
            jnp.zeros((*self.kernel_size, in_features, features), kernel.dtype)
            .at[:, :, sources, targets]
            .set(kernel)
        )
        y = convolution.conv_general_dilated(
            x, dense, (1, 1), self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias.reshape(1, 1, 1, features)

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """Multiplications of the connected taps only."""
        return (
            math.prod(output_shape[:-1]) * math.prod(self.kernel_size) * sum(map(len, self.table))
        )
