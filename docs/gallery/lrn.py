"""Local response normalization: neighbours hold one another down

AlexNet divides each number by a measure of how loud its neighbours in the *channel* axis are, at
the same place of the picture:

    b_i = a_i / (k + alpha · sum of a_j² over the n channels around i)^beta

with k = 2, n = 5, alpha = 0.0001, beta = 0.75 (A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet
classification with deep convolutional neural networks", 2012, section 3.3). A channel that stands
alone keeps most of its size, one beside a louder one becomes weaker. BatchNorm has taken its place
since, and learns what LRN fixes. AlexNet and GoogLeNet here have it as published. PyTorch and Caffe
divide alpha by n: their alpha is five times ours for the same result.

The numbers drawn are large, for alpha is small. Each channel also counts itself: the curve of one
that stands alone turns down in the end.
"""

import numpy as np
from _show import BLUE, GREY, plt, save

from jaxcnn.layers import LRN

loud = np.zeros(16, np.float32)
loud[[2, 7, 8, 9, 13]] = 100, 60, 200, 60, 60  # 2 and 13 stand alone, 8 between two others
normalized = np.asarray(LRN().apply({}, loud[None, None, None, :]))[0, 0, 0]
shares = normalized / np.maximum(loud, 1)
print(f"60 beside 200 keeps {shares[7]:.3f} of its size, 60 alone {shares[13]:.3f}")

sizes = np.linspace(0, 400, 101, dtype=np.float32)
alone = np.zeros((101, 1, 1, 5), np.float32)
alone[..., 2] = sizes[:, None, None]
beside = alone.copy()
beside[..., 3] = 200
curves = {
    "alone": np.asarray(LRN().apply({}, alone))[:, 0, 0, 2],
    "beside a channel at 200": np.asarray(LRN().apply({}, beside))[:, 0, 0, 2],
}

figure, axes = plt.subplots(1, 3, figsize=(8, 2.6))
for ax, values, title in zip(axes, (loud, normalized), ("before", "after"), strict=False):
    ax.bar(range(16), values, color=[BLUE if v else GREY for v in loud])
    ax.set_title(title)
    ax.set_xlabel("channel")
    ax.set_xticks([2, 8, 13])
for (name, curve), colour in zip(curves.items(), (BLUE, GREY), strict=True):
    axes[2].plot(sizes, curve, color=colour, label=name)
axes[2].set_title("one channel")
axes[2].set_xlabel("before")
axes[2].set_ylabel("after")
axes[2].set_ylim(0, 85)
axes[2].legend(frameon=False, fontsize=9, loc="upper left")
save(figure, "lrn")
