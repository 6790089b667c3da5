"""Convolution and pooling layers, bound to the formulations of `jaxcnn.ops` (see there for layout and source)."""

import dataclasses
from collections.abc import Callable

from flax import linen as nn

from jaxcnn.ops import convolution, pooling


class Conv(nn.Conv):
    """`flax.linen.Conv` (1-D, 2-D, 3-D, by the length of `kernel_size`) through jaxcnn's convolution seam. Input [B, *spatial, C].

    `pool`: a max- or mean-pooling of the result, computed before the bias is added: the bias is one number a map, so that both orders give
    the same values, this one from fewer additions, and the bias's gradient is a sum over fewer places.
    """

    conv_general_dilated: object = convolution.conv_general_dilated
    pool: Callable | None = None

    @nn.compact
    def __call__(self, inputs):
        """[B, *spatial, C] -> [B, *smaller, features]."""
        if self.pool is None:
            return super().__call__(inputs)
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(nn.Conv) if field.name not in ("parent", "name")}
        without_bias = nn.Conv(**given | {"use_bias": False})
        nn.share_scope(self, without_bias)
        y = self.pool(without_bias(inputs))
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


max_pool = pooling.max_pool
avg_pool = pooling.avg_pool
