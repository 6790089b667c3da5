"""Dropout: each unit learns to do without the others

While training, each unit is set to 0 with probability p, anew in each step, and those that remain
are multiplied by 1 / (1 - p), so that the mean of what the next layer sees stays what it was. In
evaluation nothing is dropped (N. Srivastava et al., "Dropout: a simple way to prevent neural
networks from overfitting", 2014; the scaling while training is the form used today). A sum over n
units keeps its mean; its variance is what dropout adds: p / (1 - p) times the sum of the squares.

The mask is drawn from a key: the same key gives the same mask, which is why a resumed run has the
bits of one that was not stopped.
"""

import jax
import jax.numpy as jnp
import numpy as np
from _show import BLUE, ORANGE, picture, plt, save
from flax import linen as nn

units = jnp.linspace(0.1, 1.0, 100)
RATES = (0.2, 0.5)


def dropped(key, rate):
    """The units with some of them at 0. [100]"""
    return nn.Dropout(rate, deterministic=False).apply({}, units, rngs={"dropout": key})


keys = jax.random.split(jax.random.key(0), 4000)
sums = {}
print(f"sum of the units: {float(units.sum()):.1f}")
for rate in RATES:
    sums[rate] = np.asarray(jax.vmap(lambda key, rate=rate: dropped(key, rate).sum())(keys))
    mean, std = sums[rate].mean(), sums[rate].std()
    expected = float(jnp.sqrt(rate / (1 - rate) * jnp.square(units).sum()))
    print(f"rate {rate}: mean {mean:.1f}, std {std:.2f}; by the formula {expected:.2f}")

figure, axes = plt.subplots(1, 4, figsize=(8, 2.6), gridspec_kw={"width_ratios": [1, 1, 1, 2]})
picture(axes[0], units.reshape(10, 10), "100 units", colours="Blues", limits=(0, 2))
for ax, seed in zip(axes[1:], (1, 2), strict=False):
    one = dropped(jax.random.key(seed), 0.5)
    picture(ax, one.reshape(10, 10), f"dropped, key {seed}", colours="Blues", limits=(0, 2))
for rate, colour in zip(RATES, (BLUE, ORANGE), strict=True):
    axes[3].hist(sums[rate], 40, color=colour, alpha=0.75, label=f"rate {rate}")
axes[3].axvline(float(units.sum()), color="black", lw=1.2, label="nothing dropped")
axes[3].set_title("their sum, 4,000 masks")
axes[3].set_yticks([])
axes[3].set_ylim(0, 560)
axes[3].legend(frameon=False, fontsize=9, loc="upper left")
save(figure, "dropout")
