"""How the gallery draws: numbers in cells, pictures without axes, one size of letters."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

BLUE, ORANGE, GREY = "#2f6f9f", "#d9772b", "#8a8f98"
plt.rcParams.update(
    {
        "figure.facecolor": "white",
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def cells(ax, values, title, *, window=None, colours="Blues", size=10, fmt="{:g}", limits=None):
    """A small matrix [rows, columns], each number in its cell; `window` (row, column, height,
    width) gets a frame, `limits` are the values of the ends of the colours.
    """
    values = np.asarray(values)
    low, high = limits or (values.min(), max(values.max(), values.min() + 1e-9))
    # the light part of the colours alone, on which black letters can be read
    start = 0.25 if "RdBu" in colours else 0.05
    shade = start + 0.5 * (values - low) / (high - low)
    ax.imshow(plt.get_cmap(colours)(np.clip(shade, 0, 1)))
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, fmt.format(value), ha="center", va="center", fontsize=size)
    for edge in range(1, max(values.shape)):
        ax.axhline(edge - 0.5, color="white", lw=1.5)
        ax.axvline(edge - 0.5, color="white", lw=1.5)
    ax.set_xlim(-0.5, values.shape[1] - 0.5)
    ax.set_ylim(values.shape[0] - 0.5, -0.5)
    bare(ax, title)
    if window is not None:
        frame(ax, *window)


def frame(ax, row, column, height, width, *, colour="black", line=2.5):
    """A frame around cells."""
    place = (column - 0.5, row - 0.5)
    look = {"fill": False, "ec": colour, "lw": line, "clip_on": False, "zorder": 5}
    ax.add_patch(Rectangle(place, width, height, **look))


def picture(ax, image, title="", *, colours="gray", limits=None):
    """An image [H, W], [H, W, 1] or [H, W, 3]; `limits` as of `cells`."""
    image = np.squeeze(np.asarray(image))
    low, high = limits or (None, None)
    shown = ax.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    bare(ax, title)
    return shown


def signed(ax, values, title=""):
    """Numbers of both signs [H, W]: blue below 0, white at 0, red above."""
    most = float(np.abs(values).max()) or 1.0
    return picture(ax, values, title, colours="RdBu_r", limits=(-most, most))


def bare(ax, title=""):
    """No ticks and no box."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title)


def sign(ax, text):
    """A sign between two pictures."""
    bare(ax)
    ax.set_xlim(-1, 1)
    ax.set_ylim(-1, 1)
    ax.text(0, 0, text, ha="center", va="center", fontsize=18)


def save(figure, name):
    """Write NAME.png into the current folder and say so."""
    figure.savefig(f"{name}.png")
    plt.close(figure)
    with Image.open(f"{name}.png") as drawn:  # 256 colours are enough, and a third of the bytes
        small = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(f"{name}.png", optimize=True)
    print(f"drew {name}.png")
