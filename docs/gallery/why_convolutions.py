"""Why convolutions: few weights, used everywhere

From a picture of 32×32×3 to a map of 28×28×6 a dense layer has a weight for each pair of numbers:
14 million. A convolution of 5×5 has 5 · 5 · 3 · 6 weights and 6 biases: 456, used at all 784 places
(*weight sharing*), and each number of the map hangs on 75 of the picture (*sparse connections*).
Written as a matrix, a convolution is a dense layer most of whose weights are 0 and whose rows are
all the same, moved.

So whatever it finds in one place, it finds in all: convolve a moved picture and the map has moved
(*equivariance*). A dense layer has to learn each place anew. A stride, or a pool, keeps this only
for shifts that it divides; see also [translation](../equivariance.md).

The numbers are those of A. Ng, "Convolutional Neural Networks", week 1, "Why convolutions?"
"""

import jax
import numpy as np
from _show import BLUE, GREY, ORANGE, plt, save, signed
from flax import linen as nn

from jaxcnn.data.made.digits import Digits
from jaxcnn.inspect.summary import summarize_layers, total_params
from jaxcnn.layers import Conv, max_pool
from jaxcnn.ops.equivariance import equivariance_error


class Dense(nn.Module):
    """From a picture to a map, each number from all. [B, H, W, C] -> [B, *shape]"""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, image, *, train=False):
        flat = nn.Dense(int(np.prod(self.shape)))(image.reshape(image.shape[0], -1))
        return flat.reshape(-1, *self.shape)


class Convolution(nn.Module):
    """5×5, and a pool. [B, H, W, C] -> [B, h, w, 6]"""

    pool: int = 1

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.relu(Conv(6, (5, 5), padding="VALID")(image))
        window = (self.pool, self.pool)
        return x if self.pool == 1 else max_pool(x, window, strides=window)


picture = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
counts = {
    "dense": total_params(summarize_layers(Dense((28, 28, 6)), [picture])),
    "convolution": total_params(summarize_layers(Convolution(), [picture])),
}
for name, count in counts.items():
    print(f"{name}: {count:,} parameters")

digits = Digits().open("train").take(np.arange(32))["image"].astype(np.float32) / 255
SHIFTS = [(0, 1), (0, 2), (0, 3)]
errors = {}
for name, module, stride in [
    ("dense", Dense((28, 28, 1)), 1),
    ("convolution, max-pool 2×2", Convolution(pool=2), 2),
    ("convolution", Convolution(), 1),
]:
    variables = jax.jit(module.init)(jax.random.key(0), digits)
    features = jax.jit(lambda x, module=module, v=variables: module.apply(v, x))
    errors[name] = equivariance_error(features, digits, SHIFTS, stride=stride, margin=2)
    print(f"{name}: error of equivariance", *(f"{e:.2f}" for e in errors[name]))

# a convolution of 6×6 pixels by 3×3 as a matrix: one column for each pixel, one row for each place
kernel = np.float32([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])[..., None, None]
layer = Conv(1, (3, 3), padding="VALID", use_bias=False)
one_pixel = np.eye(36, dtype=np.float32).reshape(36, 6, 6, 1)
matrix = np.asarray(layer.apply({"params": {"kernel": kernel}}, one_pixel)).reshape(36, 16).T

figure, axes = plt.subplots(1, 3, figsize=(8, 2.7), gridspec_kw={"width_ratios": [1, 1.9, 1.5]})
axes[0].bar(["dense", "5×5"], counts.values(), color=[GREY, BLUE])
axes[0].set_yscale("log")
axes[0].set_ylim(100, 1e9)
for place, count in enumerate(counts.values()):
    axes[0].text(place, count * 1.4, f"{count:,}", ha="center", fontsize=9)
axes[0].set_title("parameters")
signed(axes[1], matrix, "3×3 on 6×6 pixels, as a matrix")
axes[1].set_xlabel("36 pixels")
axes[1].set_ylabel("16 places")
for (name, error), colour in zip(errors.items(), (GREY, ORANGE, BLUE), strict=True):
    axes[2].plot((1, 2, 3), error, color=colour, lw=2, marker="o", ms=4, label=name)
axes[2].set_title("error of equivariance")
axes[2].set_xlabel("shift in pixels")
axes[2].set_xticks((1, 2, 3))
axes[2].set_ylim(-0.1, 2.1)
axes[2].legend(frameon=False, fontsize=8.5, loc="upper left")
save(figure, "why_convolutions")
