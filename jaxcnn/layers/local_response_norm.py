"""Local response normalization across channels. [..., C] -> [..., C]."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError


class LRN(nn.Module):
    """b_i = a_i / (k + alpha * sum of a_j^2 over the n channels around i)^beta, channels beyond the
    edge counting 0.

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
    Networks", 2012, section 3.3, whose constants are the defaults. `alpha` multiplies the *sum*, as
    printed there; PyTorch and Caffe divide theirs by n, so their alpha is n times this one. For an
    even n the window reaches one channel further down than up.
    """

    k: float = 2.0
    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.n < 1:
            raise ConfigError(
                f"LRN: n = {self.n} channels; it must be at least 1 (the paper's value is 5)"
            )
        channels = x.shape[-1]
        below, above = self.n // 2, (self.n - 1) // 2
        squares = jnp.pad(jnp.square(x), [(0, 0)] * (x.ndim - 1) + [(below, above)])
        # n shifted slices instead of a window reduction: XLA fuses them into one pass, and so their
        # gradient.
        total = sum(
            (squares[..., i : i + channels] for i in range(1, self.n)),
            start=squares[..., :channels],
        )
        return x / (self.k + self.alpha * total) ** self.beta
