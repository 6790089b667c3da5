"""Padding: what happens at the border

Without padding ("VALID") a window must lie in the picture whole, so each 3×3 convolution takes away
one pixel at every side, and a pixel in the corner is seen by one place only, one in the middle by
nine. With "SAME" a frame of zeros is put around the picture, so that the map keeps its size; for an
odd kernel of k pixels the frame is (k - 1) / 2 wide.

Here the picture is 1 everywhere and the kernel adds up nine pixels. Inside, each window finds nine
ones. At the border some of them lie on zeros: 6 at an edge, 4 in a corner. A network sees the
border of a padded picture in every map, which is how it can tell where a thing lies.
"""

import numpy as np
from _show import cells, frame, plt, save

from jaxcnn.inspect.receptive_field import output_size
from jaxcnn.ops.convolution import conv_general_dilated

picture = np.ones((5, 5), np.float32)
kernel = np.ones((3, 3), np.float32)


def convolve(padding):
    """The map of the picture under this padding, [h, w]."""
    x, w = picture[None, ..., None], kernel[..., None, None]
    layout = ("NHWC", "HWIO", "NHWC")
    return np.asarray(conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=layout))[
        0, ..., 0
    ]


maps = {
    "VALID: 3×3": convolve("VALID"),
    "SAME: 5×5": convolve("SAME"),
    "full: 7×7": convolve(((2, 2), (2, 2))),
}
for padding in ("VALID", "SAME", 2):
    print(f"padding {padding}: 5 pixels become {output_size(5, 3, padding=padding)}")

figure, axes = plt.subplots(1, 4, figsize=(8, 2.5), gridspec_kw={"width_ratios": [7, 3, 5, 7]})
cells(axes[0], np.pad(picture, 1), "picture, frame of zeros", limits=(0, 3))
frame(axes[0], 1, 1, 5, 5, colour="#8a8f98", line=1.5)
frame(axes[0], 0, 0, 3, 3)
for ax, (title, values) in zip(axes[1:], maps.items(), strict=True):
    cells(ax, values, title, limits=(0, 9), colours="Oranges")
frame(axes[2], 0, 0, 1, 1)
save(figure, "padding")
