"""Test-time augmentation: several views of each picture, whose outputs a task joins."""

import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxcnn.core.batch import kind, unit_interval
from jaxcnn.core.protocols import Batch
from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.tasks.task import Task, View

WINDOW = 7 / 8  # the side of a crop, as a share of the picture's
CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))

# The whole picture comes first: its batch is the one that is scored.
VIEWS: Mapping[str, tuple[View, ...]] = {
    "flip": (View(), View(mirrored=True)),
    "crops": tuple(
        View(mirrored, corner)
        for corner, mirrored in itertools.product((None, *CORNERS), (False, True))
    ),
}


def views_of(tta: str, task: Task) -> tuple[View, ...]:
    """The views that `tta` names: "flip", the picture and its mirror image; "crops", besides these
    five windows of 7/8 of its sides (the corners and the middle), magnified to the whole, and their
    mirror images: 12 in all, after A. Krizhevsky et al., "ImageNet classification with deep
    convolutional neural networks" (2012), section 4.1.

    Errors: ConfigError for another name, and for a model that takes no picture.
    """
    if tta not in VIEWS:
        raise ConfigError(
            f"tta={tta!r}: must be one of {', '.join(VIEWS)}{did_you_mean(tta, VIEWS)}"
        )
    if not any(kind(name) == "image" for name in task.inputs):
        raise ConfigError(
            f"tta={tta!r}: this model takes {', '.join(task.inputs)}, no picture of which there "
            "were other views; leave tta out"
        )
    return VIEWS[tta]


def show(batch: Batch, view: View, names: tuple[str, ...]) -> Batch:
    """The batch with those of the pictures `names`, [B, H, W, C], as the view has them. Errors:
    ConfigError for pictures of other axes.
    """
    if view == View():
        return batch
    pictures = unit_interval({name: batch[name] for name in names if kind(name) == "image"})
    return {**batch, **{name: _look(name, x, view) for name, x in pictures.items()}}


def _look(name: str, image: jax.Array, view: View) -> jax.Array:
    if image.ndim != 4:
        raise ConfigError(
            f"tta: {name} is {list(image.shape)}; there are other views of pictures [B, H, W, C]"
        )
    if view.window is not None:
        sizes = [round(WINDOW * side) for side in image.shape[1:3]]
        top, left = (
            round(share * (side - size))
            for share, side, size in zip(view.window, image.shape[1:3], sizes, strict=True)
        )
        part = image[:, top : top + sizes[0], left : left + sizes[1]]
        image = jax.image.resize(part, image.shape, "linear")
    return jnp.flip(image, 2) if view.mirrored else image
