"""Filters by hand, and learned ones

Before kernels were learned they were designed: derivatives that answer to edges, or waves under a
window that answer to stripes of one width and direction (Gabor's, which resemble cells of the
visual cortex). A network starts from noise and finds its own, by gradient descent alone: after 200
steps its first layer holds edges and bars of some direction, too. The filters of a trained network
are drawn by `python launch.py explain RUN --method filters`.

Both networks here are the same: eight 5×5 filters, a rectifier, averages over cells, one linear
layer. Only where the filters come from differs. On digits this small (14×14 pixels) both are right
about equally often; weights decay, so that what does not help fades from the learned filters.
"""

from functools import partial

import jax
import numpy as np
import optax
from _show import plt, save, signed

from jaxcnn.data.made.digits import Digits
from jaxcnn.models.handcrafted import FilterBankNet


def digits(split):
    """Images [N, 14, 14, 1] float32 in [0, 1], of half the size, and labels [N]."""
    arrays = Digits().open(split).arrays
    images = np.float32(arrays["image"]).reshape(-1, 14, 2, 14, 2, 1).mean((2, 4)) / 255
    return images, arrays["label"]


optimizer = optax.adamw(2e-2, weight_decay=1.0)


@partial(jax.jit, static_argnames=("model", "steps", "batch_size"))
def fit(train, held_out, *, model, steps=200, batch_size=32):
    """Parameters at the start and at the end, and the share of held-out digits that is right."""
    images, labels = train

    def loss(params, rows):
        logits = model.apply({"params": params}, images[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = model.init(jax.random.key(0), images[:1])["params"]
    rows = jax.random.randint(jax.random.key(1), (steps, batch_size), 0, len(labels))
    (end, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), rows)
    right = model.apply({"params": end}, held_out[0]).argmax(-1) == held_out[1]
    return start, end, right.mean()


train, held_out = digits("train"), digits("eval")
designed = FilterBankNet(cell=(2, 2))
learned = FilterBankNet(learned=True, cell=(2, 2))
*_, by_design = fit(train, held_out, model=designed)
start, end, by_learning = fit(train, held_out, model=learned)
print(f"handcrafted: {by_design:.2f} of the held-out digits right, learned: {by_learning:.2f}")

banks = {
    "Gabor's, by hand": np.asarray(designed.kernels()),
    "noise, before training": np.asarray(start["filters"]["kernel"])[:, :, 0],
    "learned": np.asarray(end["filters"]["kernel"])[:, :, 0],
}
figure, axes = plt.subplots(3, 8, figsize=(8, 3.6))
for row, (name, bank) in zip(axes, banks.items(), strict=True):
    for k, ax in enumerate(row):
        signed(ax, bank[..., k])
    row[0].set_title(name, loc="left")
save(figure, "filters")
