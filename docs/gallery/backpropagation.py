"""Back-propagation through a convolution

One layer, y = ReLU(x ∗ w + b), and a loss that is half the squared distance from what is wanted.
Going backwards, each step multiplies by its own derivative:

- the loss: y - t for each number of the map;
- ReLU: nothing goes where it was 0, so that δ = (y - t) · [x ∗ w + b > 0];
- the kernel lay on many places and had a share in all of them: its gradient is the sum over these,
  which is the convolution of the picture with δ as the kernel, x ∗ δ;
- a pixel was under several weights: its gradient is δ, padded on all sides ("full"), convolved with
  the kernel turned by 180 degrees;
- the bias: the sum of δ.

`jax.grad` finds the same numbers. (Y. LeCun et al., "Backpropagation applied to handwritten zip
code recognition", 1989.)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _show import cells, plt, save

from jaxcnn.ops.convolution import conv_general_dilated

x = np.float32([[1, 2, 0, 1], [0, 1, 3, 1], [2, 1, 0, 0], [1, 0, 1, 2]])
w = np.float32([[1, 0], [-1, 1]])
b = np.float32(-1)
wanted = np.float32([[1, 2, 1], [0, 0, 0], [1, 0, 2]])


@partial(jax.jit, static_argnames="padding")
def convolve(image, kernel, padding="VALID"):
    """[H, W], [h, w] -> [H', W']"""
    layout = ("NHWC", "HWIO", "NHWC")
    x, w = jnp.asarray(image)[None, ..., None], jnp.asarray(kernel)[..., None, None]
    return conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=layout)[0, ..., 0]


def loss(x, w, b):
    """Half the squared distance of ReLU(x ∗ w + b) from what is wanted."""
    return jnp.square(jax.nn.relu(convolve(x, w) + b) - wanted).sum() / 2


z = convolve(x, w) + b
delta = (jax.nn.relu(z) - wanted) * (z > 0)
by_hand = {
    "x": convolve(delta, w[::-1, ::-1], padding=((1, 1), (1, 1))),
    "w": convolve(x, delta),
    "b": delta.sum(),
}
by_jax = dict(zip("xwb", jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(x, w, b), strict=True))
for name, gradient in by_hand.items():
    difference = float(jnp.abs(gradient - by_jax[name]).max())
    print(f"gradient of {name}: largest difference from jax.grad {difference:g}")
print(f"loss {float(loss(x, w, b)):g}, after a step of 0.05 downhill", end=" ")
print(f"{float(loss(x, w - 0.05 * by_hand['w'], b - 0.05 * by_hand['b'])):.3f}")

figure, axes = plt.subplots(2, 4, figsize=(8, 4), gridspec_kw={"width_ratios": [4, 2, 3, 3]})
numbers = {"colours": "RdBu_r", "limits": (-9, 9)}
forward = [(x, "picture x"), (w, "kernel w"), (z, "z = x ∗ w − 1"), (jax.nn.relu(z), "y = ReLU(z)")]
backward = [
    (by_hand["x"], "gradient of x:\nδ ∗ turned w, full"),
    (by_hand["w"], "gradient of w:\nx ∗ δ"),
    (delta, "δ = (y − t) [z > 0]"),
    (wanted, "wanted: t"),
]
for row, maps in zip(axes, (forward, backward), strict=True):
    for ax, (values, title) in zip(row, maps, strict=True):
        cells(ax, values, title, **numbers)
save(figure, "backpropagation")
