"""Residuals: a way around each layer

A residual block adds to its input what its layers make of it, x + f(x), instead of putting f(x) in
its place (K. He et al., "Deep residual learning for image recognition", 2016). Then the gradient
has a way past all layers: the derivative of x + f(x) is 1 plus that of f. In a plain network the
gradient is the product of the derivatives of all layers, so it shrinks, or grows, by the same
factor at each of them.

Here are 40 layers of ReLU and 3×3 convolution, with the same weights once plain and once as
residuals. Drawn is the length of the gradient with respect to what enters each layer, over its
length at the last one. Plain layers need weights of just the right size (He's start, √2 times
LeCun's, keeps the length); with smaller ones the first layers learn nothing. Past residual layers
the gradient cannot vanish. It can grow, which is why blocks are normalized, or begin with f near 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from _show import BLUE, ORANGE, plt, save
from flax import linen as nn

from jaxcnn.ops.convolution import conv_general_dilated

DEPTH, WIDTH = 40, 16
image = jax.random.normal(jax.random.key(0), (1, 12, 12, WIDTH))
start = jax.vmap(lambda key: nn.initializers.he_normal()(key, (3, 3, WIDTH, WIDTH)))
he = start(jax.random.split(jax.random.key(1), DEPTH))  # [layers, 3, 3, C, C]


def layer(kernel, x):
    """ReLU and 3×3 convolution. [1, H, W, C]"""
    layout = ("NHWC", "HWIO", "NHWC")
    return conv_general_dilated(nn.relu(x), kernel, (1, 1), "SAME", dimension_numbers=layout)


@jax.jit
def lengths(kernels, around):
    """Length of the gradient of a number at the end with respect to what enters each layer,
    [layers]; `around` is 1 for residual layers, 0 for plain ones.
    """

    def end(probes):  # zeros, added to what enters each layer: their gradient is what is wanted
        def step(x, one):
            kernel, probe = one
            x = x + probe
            return around * x + layer(kernel, x), None

        return jnp.mean(jax.lax.scan(step, image, (kernels, probes))[0])

    gradients = jax.grad(end)(jnp.zeros((DEPTH, *image.shape)))
    return jnp.sqrt(jnp.square(gradients).sum((1, 2, 3, 4)))


SCALES = {1.0: "-", 0.5: "--"}  # of He's weights, and how they are drawn
shares = {}
for scale in SCALES:
    for kind, around in (("plain", 0.0), ("residual", 1.0)):
        curve = np.asarray(lengths(scale * he, around))
        shares[kind, scale] = curve / curve[-1]
        first = np.log10(shares[kind, scale][0])
        print(f"{kind}, {scale:g} of He's weights: first layer 10^{first:.1f} of the last")

figure, ax = plt.subplots(figsize=(8, 3.2))
for (kind, scale), share in shares.items():
    colour = BLUE if kind == "residual" else ORANGE
    label = f"{kind}, {scale:g} of He's"
    ax.semilogy(range(1, DEPTH + 1), share, SCALES[scale], color=colour, lw=2, label=label)
ax.set_xlabel("layer")
ax.set_title("length of the gradient at each layer, over that at the last")
ax.grid(axis="y", color="#e3e7ec")
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
save(figure, "residuals")
