"""Signals, pictures, films: 1-D, 2-D, 3-D

The same layer convolves along one axis (sound, a heartbeat, words in a row), two (pictures) or
three (films, slices of a body): the length of `kernel_size` says along how many. Arrays are [B, T,
C], [B, H, W, C] and [B, T, H, W, C]; a kernel has as many axes as it moves along, and always sees
all channels. Its weights are k · C · F, k² · C · F or k³ · C · F for C channels in and F out.

Shown are a mean of nine samples of a noisy wave, the change to the right in a digit, and the change
from one frame to the next of a film in which a digit moves to the right: red where it arrives, blue
where it leaves.
"""

import jax
import numpy as np
from _show import BLUE, GREY, picture, plt, save, signed

from jaxcnn.data.made.digits import Digits
from jaxcnn.layers import Conv
from jaxcnn.ops.filters import sobel


def layer(kernel):
    """A layer with one filter, given as [*window]; inputs [B, *spatial, 1]."""
    weights = {"params": {"kernel": np.float32(kernel)[..., None, None]}}
    module = Conv(1, kernel.shape, use_bias=False)
    return lambda x: np.asarray(module.apply(weights, x))


time = np.arange(120)
noise = 0.4 * np.random.default_rng(0).normal(size=120)
signal = np.float32(np.sin(time / 10) + noise)
smooth = layer(np.full(9, 1 / 9))(signal[None, :, None])[0, :, 0]

digit = Digits().open("train").take(np.array([3]))["image"][0, ..., 0].astype(np.float32) / 255
edges = layer(sobel()[..., 1])(digit[None, ..., None])[0, ..., 0]

film = np.stack([np.roll(digit, 2 * t - 4, axis=1) for t in range(5)])  # [T, H, W]
kernel = np.zeros((3, 3, 3))
kernel[0], kernel[2] = -1 / 9, 1 / 9  # the frame after less the frame before, smoothed
motion = layer(kernel)(film[None, ..., None])[0, ..., 0]

for size in ((5,), (5, 5), (5, 5, 5)):
    image = np.zeros((1, *(8,) * len(size), 3), np.float32)
    made = jax.eval_shape(lambda x, size=size: Conv(16, size).init(jax.random.key(0), x), image)
    weights = made["params"]["kernel"].size
    print(f"{len(size)}-D, window of 5, 3 channels to 16: {weights:,} weights")

figure = plt.figure(figsize=(8, 3.9))
rows = figure.add_gridspec(2, 1, height_ratios=[1, 1])
ax = figure.add_subplot(rows[0].subgridspec(1, 2, width_ratios=[1, 1])[0])
ax.plot(time, signal, color=GREY, lw=1, label="signal")
ax.plot(time, smooth, color=BLUE, lw=2, label="mean of nine samples")
ax.set_title("1-D: [B, T, C]")
ax.set_ylim(-2, 2.6)
ax.legend(frameon=False, ncols=2, loc="upper right")
two = rows[0].subgridspec(1, 2, width_ratios=[1, 1])[1].subgridspec(1, 2)
picture(figure.add_subplot(two[0]), digit, "2-D: [B, H, W, C]")
signed(figure.add_subplot(two[1]), edges, "change to the right")
three = rows[1].subgridspec(1, 6)
for t in range(3):
    picture(
        figure.add_subplot(three[t]), film[t + 1], f"3-D: frame {t + 1}" if t == 0 else f"{t + 1}"
    )
    signed(figure.add_subplot(three[t + 3]), motion[t + 1], f"motion at {t + 1}")
save(figure, "dimensions")
