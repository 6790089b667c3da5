"""Pooling: the strongest, or the mean

Pooling has no weights. Of each window of a map it keeps the largest number (max pooling) or the
mean (average pooling), each channel for itself. Windows of 2×2 with a stride of 2 keep a quarter of
the numbers. Max pooling says *that* a feature is there, and no longer where in the window: a digit
moved by one pixel changes the pooled map less than the map. It does not become blind to the shift:
windows of the shifted picture hold other pixels (R. Zhang, "Making convolutional networks
shift-invariant again", 2019).

The gradient of a maximum goes to the pixel that won, that of a mean to all in equal parts.
"""

import jax
import numpy as np
from _show import cells, plt, save

from jaxcnn.data.made.digits import Digits
from jaxcnn.layers import avg_pool, max_pool
from jaxcnn.ops.equivariance import deviation, shift_image

numbers = np.array([[1, 3, 2, 1], [2, 9, 1, 1], [1, 4, 2, 3], [5, 6, 1, 2]], np.float32)


def pooled(pool, image, size=2):
    """Windows of size×size side by side. [H, W] -> [H / size, W / size]"""
    window = (size, size)
    return np.asarray(pool(image[None, ..., None], window, strides=window))[0, ..., 0]


largest, mean = pooled(max_pool, numbers), pooled(avg_pool, numbers)
gradient = jax.grad(lambda x: max_pool(x[None, ..., None], (2, 2), strides=(2, 2)).sum())(numbers)


@jax.jit
def changes_of(digits):
    """By how much of their spread digits [B, H, W, 1], and pooled ones, change when moved."""
    moved = shift_image(digits, (0, 1))
    changes = {"the picture": deviation(digits, moved)}
    for size in (2, 4):
        window = (size, size)
        a, b = (max_pool(x, window, strides=window) for x in (digits, moved))
        changes[f"max {size}×{size}"] = deviation(a, b)
    return changes


digits = Digits().open("train").take(np.arange(32))["image"].astype(np.float32) / 255
changes = {name: float(change) for name, change in changes_of(digits).items()}
for name, change in changes.items():
    print(f"moved by one pixel, {name} changes by {change:.2f} of its spread")

figure, axes = plt.subplots(1, 5, figsize=(8, 2.5), gridspec_kw={"width_ratios": [4, 2, 2, 4, 4]})
limits = (0, 9)
cells(axes[0], numbers, "a map", window=(0, 0, 2, 2), limits=limits)
cells(axes[1], largest, "max", window=(0, 0, 1, 1), limits=limits)
cells(axes[2], mean, "mean", window=(0, 0, 1, 1), limits=limits)
cells(axes[3], gradient, "where the gradient\nof max goes", colours="Oranges")
axes[4].bar(range(3), changes.values(), color=["#8a8f98", *["#2f6f9f"] * 2])
axes[4].set_xticks(range(3), ["none", "2×2", "4×4"])
axes[4].set_title("change when moved\nby a pixel, max pooling")
save(figure, "pooling")
