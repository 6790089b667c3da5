"""Stride: fewer places

With a stride of s the window moves on by s pixels. The map has about 1 / s as many rows and
columns, so 1 / s² as many numbers, and costs as much less. Along one axis of n pixels, with a
window of k pixels and p pixels of padding at both ends, there are

    floor((n + 2 p - k) / s) + 1

places. Where the last window does not fit, the pixels after it are not seen: of 8 pixels a window
of 3 with a stride of 2 leaves out the last one. Strides multiply from layer to layer: after three
layers of stride 2 neighbouring numbers of a map are 8 pixels of the picture apart.
"""

import numpy as np
from _show import frame, picture, plt, save, signed

from jaxcnn.data.made.digits import Digits
from jaxcnn.inspect.receptive_field import output_size
from jaxcnn.ops.convolution import conv_general_dilated
from jaxcnn.ops.filters import sobel

digit = Digits().open("train").take(np.array([3]))["image"].astype(np.float32) / 255
kernel = sobel()[..., None, 1:].astype(np.float32)  # change to the right

maps, sizes = {}, {}
for stride in (1, 2, 3):
    layout = ("NHWC", "HWIO", "NHWC")
    out = conv_general_dilated(digit, kernel, (stride, stride), "VALID", dimension_numbers=layout)
    maps[stride] = np.asarray(out)[0, ..., 0]
    sizes[stride] = output_size(28, 3, stride=stride)
    print(f"stride {stride}: {sizes[stride]}×{sizes[stride]} = {maps[stride].size} numbers")

figure, axes = plt.subplots(2, 4, figsize=(8, 4.2))
picture(axes[0, 0], np.zeros((8, 8)), "8×8 pixels, window 3×3", colours="Blues", limits=(0, 1))
picture(axes[1, 0], digit[0], "a digit, 28×28")
for column, stride in enumerate((1, 2, 3), 1):
    ax = axes[0, column]
    places = output_size(8, 3, stride=stride)
    picture(ax, np.zeros((8, 8)), f"stride {stride}: {places}×{places} places", limits=(-1, 0))
    for i in range(9):
        ax.axhline(i - 0.5, color="#d5dbe3", lw=1)
        ax.axvline(i - 0.5, color="#d5dbe3", lw=1)
    middle = 1 + stride * np.arange(places)
    ax.scatter(*np.meshgrid(middle, middle), color="#2f6f9f", s=14)
    frame(ax, 0, 0, 3, 3)
    frame(ax, 0, stride, 3, 3, colour="#2f6f9f", line=1.5)
    ax.set_xlim(-0.6, 7.6)
    ax.set_ylim(7.6, -0.6)
    signed(axes[1, column], maps[stride], f"change to the right\n{sizes[stride]}×{sizes[stride]}")
for i in range(9):
    axes[0, 0].axhline(i - 0.5, color="#d5dbe3", lw=1)
    axes[0, 0].axvline(i - 0.5, color="#d5dbe3", lw=1)
frame(axes[0, 0], 0, 0, 3, 3)
save(figure, "stride")
