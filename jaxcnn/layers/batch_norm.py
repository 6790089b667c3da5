"""BatchNorm in an order of operations that leaves less to be stored.

Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift" (2015), algorithm 1.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxcnn.ops import convolution


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm`, with the same options, variables and values: [..., C] -> [..., C],
    statistics over all axes but the last.

    On CPU, for float32 and float64, y = a x + b with a = scale / sqrt(var + epsilon) and b = bias -
    a mean, as PyTorch computes it. The derivative then needs x alone, which is in memory anyway,
    where for Flax's a (x - mean) + bias XLA stores x - mean as well. Its rounding grows with mean /
    sqrt(var), which is less than that of the variance, E[x²] - E[x]², in both. Everything else is
    Flax's own.
    """

    @nn.compact
    def __call__(self, x, use_running_average=None, *, mask=None):
        special = (
            self.axis != -1
            or self.axis_name is not None
            or not self.use_fast_variance
            or mask is not None
        )
        wide = (
            x.dtype in (jnp.float32, jnp.float64)
            and self.dtype in (None, x.dtype)
            and self.force_float32_reductions
        )
        if special or not wide or convolution.current_formulation() == "natural":
            return super().__call__(x, use_running_average, mask=mask)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:], jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, x.shape[-1:], jnp.float32)
        if nn.merge_param("use_running_average", self.use_running_average, use_running_average):
            mean, var = running_mean.value, running_var.value
        else:
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            # rounding may make the difference negative
            var = jnp.maximum(0.0, (x * x).mean(axes) - mean * mean)
            if not self.is_initializing():
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * var
        factor = lax.rsqrt(var + self.epsilon)
        if self.use_scale:
            factor *= self.param("scale", self.scale_init, x.shape[-1:], self.param_dtype)
        shift = -mean * factor
        if self.use_bias:
            shift += self.param("bias", self.bias_init, x.shape[-1:], self.param_dtype)
        shape = (1,) * (x.ndim - 1) + x.shape[-1:]
        return x * factor.reshape(shape) + shift.reshape(shape)
