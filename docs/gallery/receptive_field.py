"""Receptive field: what one number sees

One number of the first map sees as many pixels as its kernel has. A number of the second map sees
what all its places of the first see together, and so on: a layer with a window of k and a dilation
of d adds (k - 1) · d times the product of the strides before it (A. Araujo, W. Norris, J. Sim,
"Computing receptive fields of convolutional neural networks", Distill, 2019). Two 3×3 layers see
5×5, three 7×7, with fewer weights than one large kernel; a stride or a dilation lets the field grow
much faster.

Within the field not all pixels count alike: most paths lead to the middle. What a pixel counts is
measured here as the gradient of the middle number of the last map with respect to the picture, for
kernels whose weights are all equal. (W. Luo et al., "Understanding the effective receptive field in
deep convolutional neural networks", 2016).
"""

import jax
import jax.numpy as jnp
import numpy as np
from _show import frame, picture, plt, save

from jaxcnn.inspect.receptive_field import receptive_field
from jaxcnn.ops.convolution import conv_general_dilated

SIDE = 41
STACKS = {  # (window, stride, dilation) of each layer
    "two 3×3": [(3, 1, 1)] * 2,
    "six 3×3": [(3, 1, 1)] * 6,
    "four 3×3,\nstrides 1 2 2 1": [(3, 1, 1), (3, 2, 1), (3, 2, 1), (3, 1, 1)],
    "four 3×3,\ndilations 1 2 4 8": [(3, 1, 1), (3, 1, 2), (3, 1, 4), (3, 1, 8)],
}


def middle(image, layers):
    """The middle number of the last map of an image [1, H, W, 1]."""
    layout = ("NHWC", "HWIO", "NHWC")
    for window, stride, dilation in layers:
        kernel = jnp.full((window, window, 1, 1), 1 / window**2)
        image = conv_general_dilated(
            image, kernel, (stride,) * 2, "SAME", rhs_dilation=(dilation,) * 2,
            dimension_numbers=layout,
        )  # fmt: skip
    return image[0, image.shape[1] // 2, image.shape[2] // 2, 0]


fields, seen = {}, {}
for name, layers in STACKS.items():
    fields[name], stride = receptive_field(layers)
    gradient = jax.grad(middle)(jnp.zeros((1, SIDE, SIDE, 1)), layers)
    seen[name] = np.asarray(gradient)[0, ..., 0]
    print(f"{' '.join(name.split())}: sees {fields[name]}×{fields[name]} pixels")

figure, axes = plt.subplots(1, len(STACKS), figsize=(8, 2.7))
for ax, (name, values) in zip(axes, seen.items(), strict=True):
    picture(ax, np.sqrt(values), name, colours="Blues")
    side = fields[name]
    rows = np.flatnonzero(values.sum(1))
    frame(ax, rows[0], rows[0], side, side, line=1.2)
    ax.set_xlabel(f"{side}×{side} of {SIDE}×{SIDE} pixels")
    ax.add_patch(plt.Rectangle((-0.5, -0.5), SIDE, SIDE, fill=False, ec="#d5dbe3"))
save(figure, "receptive_field")
