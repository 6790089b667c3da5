"""Multilayer perceptron. Input [B, D], or images [B, H, W, C] that it flattens; output [B,
features[-1]], without activation (logits).
"""

import jax
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers import activation


def _kernel_init(name: str):
    """The initial weights that suit an activation, uniform or normal with biases at 0.

    Sigmoid: four times Glorot's range (its slope at 0 is 1/4, that of tanh 1), with which four such
    layers still learn XOR by plain SGD. Glorot, Bengio, "Understanding the difficulty of training
    deep feedforward neural networks", 2010, equation 16; He et al., "Delving Deep into Rectifiers",
    2015, equation 10.
    """
    if name == "sigmoid":
        return nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
    return nn.initializers.he_normal() if "relu" in name else nn.initializers.glorot_uniform()


class MLP(nn.Module):
    """Fully connected layers of these `features`; the default on two inputs is the sigmoid network
    2-10-10-10-1 (261 parameters).

    Its one output is a logit: the sigmoid of a binary classifier is applied by the task.
    """

    features: tuple[int, ...] = (10, 10, 10, 1)
    activation: str = "sigmoid"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if not self.features or min(self.features) < 1:
            raise ConfigError(
                f"MLP: features = {self.features}; it must hold the width, at least 1, of each "
                "layer, e.g. (10, 10, 1)"
            )
        if x.ndim < 2:
            raise ConfigError(
                f"MLP expects [B, D] or [B, H, W, C], found shape {x.shape}; add the batch axis"
            )
        squash, kernel_init = activation(self.activation), _kernel_init(self.activation)
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.features):
            x = nn.Dense(width, kernel_init=kernel_init, name=f"fc{i + 1}")(
                x if i == 0 else squash(x)
            )
        return x
