"""Inception: several windows at once, 1×1 first

Which window is right, 1×1, 3×3, 5×5 or a pool? An inception module takes all of them side by side
and lets the next layer choose: the maps are joined along the channels (C. Szegedy et al., "Going
deeper with convolutions", 2015, figure 2b). What makes it affordable is a 1×1 convolution before
the large windows. It mixes channels at each pixel and leaves fewer of them: a bottleneck. A 5×5
layer from 192 to 32 channels on 28×28 pixels multiplies 120 million times; by way of 16 channels it
is 12 million.

Drawn is module 3a of GoogLeNet, with the multiplications of each branch as `summary` counts them.
"""

import jax
from _show import BLUE, GREY, ORANGE, bare, plt, save

from jaxcnn.inspect.summary import summarize_layers, total_macs, total_params
from jaxcnn.models.googlenet import INCEPTION_WIDTHS, Inception

image = jax.ShapeDtypeStruct((1, 28, 28, 192), "float32")
module = Inception(INCEPTION_WIDTHS["3a"], batch_norm=False, large_kernel=5)
layers = {layer.name: layer for layer in summarize_layers(module, [image])}
macs = {name: layer.macs for name, layer in layers.items()}

direct = 28 * 28 * 32 * 5 * 5 * 192
narrowed = macs["reduce5x5"] + macs["conv5x5"]
print(f"5×5 from 192 to 32 channels: {direct:,} multiplications, by way of 16: {narrowed:,}")
print(f"module 3a: {total_params(list(layers.values())):,} parameters")
print(f"module 3a: {total_macs(list(layers.values())):,} multiplications")

BRANCHES = [  # each from the input down to the joined maps
    [("1×1\n64", "conv1x1")],
    [("1×1\n96", "reduce3x3"), ("3×3\n128", "conv3x3")],
    [("1×1\n16", "reduce5x5"), ("5×5\n32", "conv5x5")],
    [("pool\n3×3", None), ("1×1\n32", "project")],
]
figure, (ax, bars) = plt.subplots(1, 2, figsize=(8, 3.4), gridspec_kw={"width_ratios": [3, 2]})
box = {"boxstyle": "round,pad=0.35", "ec": GREY, "fc": "white"}
bare(ax)
ax.set_xlim(-0.6, 3.6)
ax.set_ylim(-0.35, 3.35)
text = {"ha": "center", "va": "center", "fontsize": 9.5}
ends = [(1.5, 3, "28×28×192"), (1.5, 0, "joined: 64 + 128 + 32 + 32 = 256 channels")]
for column, branch in enumerate(BRANCHES):
    heights = [1.5] if len(branch) == 1 else [2.1, 1.0]
    path = [(1.5, 3), *((column, y) for y in heights), (1.5, 0)]
    ax.plot(*zip(*path, strict=True), color=GREY, lw=1.2, zorder=0)
    for (label, name), y in zip(branch, heights, strict=True):
        narrow = name in ("reduce3x3", "reduce5x5", "project")
        ax.text(column, y, label, **text, bbox={**box, "fc": "#fbe3d0" if narrow else "#dce9f3"})
for x, y, label in ends:
    ax.text(x, y, label, **text, bbox=box)
ax.set_title("module 3a; orange: fewer channels")
rows = {
    "5×5 direct": direct,
    "1×1, then 5×5": narrowed,
    "1×1, then 3×3": macs["reduce3x3"] + macs["conv3x3"],
    "1×1": macs["conv1x1"],
    "pool, then 1×1": macs["project"],
}
colours = [GREY, ORANGE, BLUE, BLUE, BLUE]
bars.barh(list(rows), [n / 1e6 for n in rows.values()], color=colours)
for place, number in enumerate(rows.values()):
    bars.text(number / 1e6 + 2, place, f"{number / 1e6:.0f}", va="center")
bars.invert_yaxis()
bars.set_xlim(0, 145)
bars.set_title("million multiplications")
save(figure, "inception")
