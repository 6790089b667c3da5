"""Style transfer: a picture with the content of one picture and the style of another.

Outputs: a named tuple with `picture` [B, H, W, 3] in about [0, 1]; `style`, `wanted_style` and
`start_style`, tuples of statistics [B, …] of the picture, the style picture and the content
picture; `content` and `wanted_content`, tuples of maps [B, h, w, C] of the picture and
of what it is to show. Batch: "image" [B, H, W, 3], the content.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops.gram import total_variation
from jaxcnn.tasks.task import BaseTask, Batch, mean_of, total

TINY = 1e-12  # keeps 0 / 0 out of a picture that is in the wanted style to begin with


@dataclasses.dataclass(frozen=True)
class StyleTransfer(BaseTask):
    """loss = style_weight * style ratio + content_weight * content ratio + smoothness * total
    variation.

    The style ratio is the squared distance of the picture's statistics to the style's as a share of
    the content picture's own, the mean
    over the layers: 1 for the untouched content, 0 in the wanted style. It is the style loss of
    Gatys et al. ("Image style transfer using convolutional neural networks", 2016, equations 4 and
    5), with such weights of the layers that each starts equally large, as a share of its start. The
    content ratio is the squared distance of the maps as a share of their squared length: 0 for the
    untouched content, about 1 where nothing of it is left. Both are free of the network's scale, so
    that weights mean the same for every style.

    There is no blind answer to compare with: the style picture itself has a style ratio of 0.
    """

    style_weight: float = 1.0
    content_weight: float = 0.1
    smoothness: float = 0.1
    inputs: tuple[str, ...] = ("image",)
    metric: str = "style_ratio"
    larger_is_better: bool = False

    any_size = True  # the model takes pictures of any size
    no_blind = "a style has no right answer; 1 is the untouched content, 0 the style itself"

    def __post_init__(self):
        for name in ("style_weight", "content_weight", "smoothness"):
            value = getattr(self, name)
            if isinstance(value, int | float) and value < 0:
                raise ConfigError(
                    f"StyleTransfer: {name} is {value}; a weight is not negative (0 leaves the "
                    "term out)"
                )

    def loss(self, outputs: Any, batch: Batch) -> jax.Array:
        """The weighted sum [B] float32."""
        return (
            jnp.asarray(self.style_weight, jnp.float32) * style_ratio(outputs)
            + jnp.asarray(self.content_weight, jnp.float32) * content_ratio(outputs)
            + jnp.asarray(self.smoothness, jnp.float32)
            * total_variation(outputs.picture.astype(jnp.float32))
        )

    def counts(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Sums of the two ratios."""
        real = batch["mask"] > 0
        return {
            "style_ratio": total(real, style_ratio(outputs)),
            "content_ratio": total(real, content_ratio(outputs)),
        }

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """style_ratio and content_ratio, means over pictures."""
        names = ("style_ratio", "content_ratio")
        return {name: float(sums[name]) / max(int(sums["count"]), 1) for name in names}

    def predict(self, outputs: Any) -> dict[str, jax.Array]:
        """image [B, H, W, 3] uint8."""
        return {
            "image": jnp.round(
                jnp.clip(outputs.picture.astype(jnp.float32), 0.0, 1.0) * 255.0
            ).astype(jnp.uint8)
        }

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """The picture, "image" uint8 [H, W, 3]."""
        return {"image": np.asarray(row["image"])}

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for pictures that are not RGB, unscaled or not finite."""
        for name in self.inputs:
            if name not in batch:
                raise DataError(
                    f"style transfer needs {name!r} but the examples have {sorted(batch)}; rename "
                    "the entry, or set `inputs`"
                )
            shape = np.shape(batch[name])
            if len(shape) != 4 or shape[-1] != 3:
                raise DataError(
                    f"{name} has shape {shape}; style transfer takes RGB pictures [B, H, W, 3]. "
                    "Read them with 3 channels"
                )
        super().check(batch)

    def ensemble(self, outputs: list) -> Any:
        """The mean of the models' pictures and of all that was seen in them."""
        return mean_of(outputs)


def style_ratio(outputs: Any) -> jax.Array:
    """Distance to the wanted style as a share of the content picture's, the mean over the layers.
    [B] float32
    """
    ratios = [
        _distance(own, wanted) / jnp.maximum(_distance(start, wanted), TINY)
        for own, wanted, start in zip(
            outputs.style, outputs.wanted_style, outputs.start_style, strict=True
        )
    ]
    return sum(ratios[1:], start=ratios[0]) / len(ratios)


def content_ratio(outputs: Any) -> jax.Array:
    """Distance to the wanted maps as a share of their squared length, the mean over the layers. [B]
    float32
    """
    ratios = [
        _distance(own, wanted) / jnp.maximum(_distance(wanted, jnp.zeros_like(wanted)), TINY)
        for own, wanted in zip(outputs.content, outputs.wanted_content, strict=True)
    ]
    return sum(ratios[1:], start=ratios[0]) / len(ratios)


def _distance(first: jax.Array, second: jax.Array) -> jax.Array:
    """Mean squared difference of each row. [B, …], the same -> [B] float32"""
    difference = first.astype(jnp.float32) - second.astype(jnp.float32)
    return jnp.mean(jnp.square(difference), axis=tuple(range(1, difference.ndim)))
