"""Augmentation: the same thing, seen otherwise

An augmentation changes a picture as the world might and leaves its meaning: moved, turned,
mirrored, darker, partly hidden. Each step draws anew, so that no picture is seen twice alike. What
is a place moves along: boxes, masks and points go where the pixels go. Mixing two pictures mixes
their labels, too, in the same shares. Digits are not to be mirrored, faces are: which change leaves
the meaning is knowledge about the task.

An augmentation is a function of a key and a batch. The order of the pictures and all that is drawn
follow from seed and step, so a resumed run sees the same.

The photograph is scikit-learn's sample `flower.jpg` by dany13, CC BY 2.0.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _show import frame, picture, plt, save
from sklearn.datasets import load_sample_image

from jaxcnn.data import augment

SIDE = 64
crops = [load_sample_image(name)[20:404, 120:504] for name in ("flower.jpg", "china.jpg")]
images = np.float32([c.reshape(SIDE, 6, SIDE, 6, 3).mean((1, 3)) for c in crops]) / 255
batch = {
    "image": jnp.asarray(images),
    "label": jnp.arange(2),
    "boxes": jnp.float32([[[0.08, 0.1, 0.96, 0.88]]] * 2),  # (y0, x0, y1, x1)
    "boxes_mask": jnp.ones((2, 1)),
    "box_labels": jnp.zeros((2, 1), int),
}
CHANGES = {
    "shift": partial(augment.shift, pixels=10),
    "flip_left_right": partial(augment.flip_left_right, rate=1.0),
    "rotate": partial(augment.rotate, degrees=30.0),
    "perspective": partial(augment.perspective, rate=1.0),
    "jitter_color": partial(augment.jitter_color, brightness=0.6, contrast=0.6, saturation=0.9),
    "blur": partial(augment.blur, rate=1.0),
    "cutout": partial(augment.cutout, size=24),
}


def seen(key, change, batch):
    """The first picture of the batch after a change, and its box in pixels."""
    after = jax.jit(change)(key, batch)
    return np.clip(after["image"][0], 0, 1), np.asarray(after["boxes"][0, 0]) * SIDE


key = jax.random.key(1)
results = {name: seen(key, change, batch) for name, change in CHANGES.items()}
mirror = jax.jit(partial(augment.flip_left_right, key, rate=1.0))
twice = mirror(mirror(batch))
pair = {"image": batch["image"], "label": batch["label"]}
mixed = jax.jit(partial(augment.mixup, alpha=1.0))(jax.random.key(3), pair)
share = float(mixed["label_weight"][0])
difference = float(jnp.abs(twice["image"] - batch["image"]).max())
print(f"mirrored twice: largest difference {difference:g}")
print(f"mixup: {share:.2f} of label {mixed['label'][0]}, the rest of label {mixed['label_b'][0]}")

figure, axes = plt.subplots(2, 5, figsize=(8, 3.7))
picture(axes[0, 0], images[0], "as it is")
frame(axes[0, 0], *(SIDE * np.array([0.08, 0.1, 0.88, 0.78])), colour="white", line=1.5)
for ax, (name, (image, box)) in zip(axes.flat[1:], results.items(), strict=False):
    picture(ax, image, name)
    y0, x0, y1, x1 = box
    frame(ax, y0, x0, y1 - y0, x1 - x0, colour="white", line=1.5)
picture(axes[1, 3], np.clip(mixed["image"][0], 0, 1), "mixup")
axes[1, 3].set_xlabel(f"{share:.2f} flower")
picture(axes[1, 4], images[1], "its partner")
save(figure, "augmentation")
