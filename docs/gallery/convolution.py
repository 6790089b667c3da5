"""Convolution by hand

A kernel is laid on each place of a picture in turn; what lies on one another is multiplied, and the
products are added. Each place gives one number, and the numbers together are the *feature map*.
This kernel answers where bright lies to the left of dark: its columns are 1, 0 and -1, so an even
surface gives 0 and the edge between the 10s and the 0s gives 3 · 10 = 30.

Networks do not flip the kernel, as mathematicians' convolution would: what they call convolution is
cross-correlation. Nothing is lost by that where kernels are learned. A 3×3 kernel fits into a
picture of n×n pixels at (n - 2)×(n - 2) places: 6×6 pixels give 4×4 numbers.

The numbers are those of A. Ng, "Convolutional Neural Networks" (Deep Learning Specialization), week
1.
"""

import numpy as np
from _show import cells, plt, save, sign

from jaxcnn.ops.convolution import conv_general_dilated
from jaxcnn.ops.filters import course_edges

image = np.zeros((6, 6), np.float32)
image[:, :3] = 10
kernel = course_edges()[..., 1].astype(np.float32)  # answers to vertical edges


def convolve(image, kernel):
    """Each place of the kernel in turn. [H, W], [h, w] -> [H - h + 1, W - w + 1]"""
    h, w = kernel.shape
    rows, columns = image.shape[0] - h + 1, image.shape[1] - w + 1
    out = np.zeros((rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            out[i, j] = np.sum(image[i : i + h, j : j + w] * kernel)
    return out


by_hand = convolve(image, kernel)
# the same by the operation that the layers use: [B, H, W, C] and [h, w, C, features]
layout = ("NHWC", "HWIO", "NHWC")
by_layer = conv_general_dilated(
    image[None, ..., None], kernel[..., None, None], (1, 1), "VALID", dimension_numbers=layout
)[0, ..., 0]
print("one row of the feature map:", *by_hand[0].astype(int))
print("largest difference from the layer's operation:", float(np.abs(by_hand - by_layer).max()))

widths = {"width_ratios": [6, 0.6, 3, 0.6, 4]}
figure, axes = plt.subplots(1, 5, figsize=(8, 3), gridspec_kw=widths)
cells(axes[0], image, "picture 6×6", window=(1, 1, 3, 3))
sign(axes[1], "∗")
cells(axes[2], kernel, "kernel 3×3", colours="RdBu_r", limits=(-3, 3))
sign(axes[3], "=")
cells(axes[4], by_hand, "feature map 4×4", window=(1, 1, 1, 1), colours="Oranges")
save(figure, "convolution")
