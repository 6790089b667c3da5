"""Super-resolution: restore the large picture from the small one, scored against bicubic
enlargement.

Outputs: the enlarged picture [B, H, W, C] float in about [0, 1]. Batch: "image" [B, H / scale, W /
scale, C] and "target" [B, H, W, C], float in [0, 1], C = 3 (RGB) or 1 (luma already).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics import image_quality
from jaxcnn.tasks.task import BaseTask, Batch, Blind, View, mean_of, total

# of a crop restored exactly, as of a black sky: an infinite PSNR would make every mean infinite
MOST_DECIBELS = 100.0
SSIM_WINDOW = 11


@dataclasses.dataclass(frozen=True)
class SuperResolution(BaseTask):
    """The picture `scale` times larger.

    Scores are those of the field: PSNR and SSIM of the luma (ITU-R BT.601) of values cut to [0, 1],
    without a frame of `scale` pixels, each a mean over pictures. The loss is Charbonnier's, sqrt(d
    * d + epsilon * epsilon) (Lai et al., "Deep Laplacian pyramid networks for fast and accurate
    super-resolution", 2017, section 3.3), on the luma, or on all colours with `colour`.
    """

    scale: int = 2
    colour: bool = False
    epsilon: float = 1e-3
    inputs: tuple[str, ...] = ("image",)
    metric: str = "psnr"
    larger_is_better: bool = True

    any_size = True  # the model takes pictures of any size

    def __post_init__(self):
        if self.scale < 2:
            raise ConfigError(
                f"SuperResolution: scale is {self.scale}; a picture is made at least 2 times larger"
            )
        if isinstance(self.epsilon, int | float) and self.epsilon <= 0:
            raise ConfigError(
                f"SuperResolution: epsilon is {self.epsilon}; it is above 0, or the loss has no "
                "gradient at 0 (try 1e-3)"
            )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Charbonnier loss [B] float32, the mean over the pixels; 1/255 is one grey level."""
        difference = outputs.astype(jnp.float32) - batch["target"].astype(jnp.float32)
        if not self.colour and difference.shape[-1] == 3:
            difference = image_quality.luma(difference) - jnp.float32(16 / 255)
        epsilon = jnp.asarray(self.epsilon, jnp.float32)
        return jnp.mean(jnp.sqrt(jnp.square(difference) + jnp.square(epsilon)), axis=(1, 2, 3))

    def counts(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Sums of the pictures' PSNR (dB) and SSIM, and of those of bicubic enlargement."""
        real = batch["mask"] > 0
        truth, low = batch["target"].astype(jnp.float32), batch["image"].astype(jnp.float32)
        bicubic = image_quality.resize_bicubic(low, (truth.shape[1], truth.shape[2]))
        scores = {
            **self._scores(outputs.astype(jnp.float32), truth, ""),
            **self._scores(bicubic, truth, "bicubic_"),
        }
        return {name: total(real, score) for name, score in scores.items()}

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """psnr and bicubic_psnr in dB, psnr_gain (their difference), ssim and bicubic_ssim."""
        names = ("psnr", "bicubic_psnr", "ssim", "bicubic_ssim")
        means = {name: float(sums[name]) / max(int(sums["count"]), 1) for name in names}
        return {"psnr": means["psnr"], "psnr_gain": means["psnr"] - means["bicubic_psnr"], **means}

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """image [B, H, W, C] uint8."""
        return {
            "image": jnp.round(jnp.clip(outputs.astype(jnp.float32), 0.0, 1.0) * 255.0).astype(
                jnp.uint8
            )
        }

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """The enlarged picture, "image" uint8 [H, W, C]."""
        return {"image": np.asarray(row["image"])}

    def blind(self, metrics: dict[str, Any]) -> Blind | None:
        """Bicubic enlargement, which learned nothing."""
        value = 0.0 if self.metric == "psnr_gain" else metrics.get(f"bicubic_{self.metric}")
        return None if value is None else Blind(value, "bicubic enlargement")

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for a target that is not `scale` times the image, too small to be scored,
        unscaled or not finite.
        """
        for name in ("image", "target"):
            if name not in batch:
                raise DataError(
                    f"super-resolution needs {name!r} but the examples have {sorted(batch)}; "
                    f"PhotoCrops(scale={self.scale}) has both"
                )
        super().check(batch)
        small, large = np.shape(batch["image"]), np.shape(batch["target"])
        wanted = (small[0], small[1] * self.scale, small[2] * self.scale, small[3])
        if large != wanted:
            raise DataError(
                f"target has shape {large}; with scale {self.scale} images {small} need targets "
                f"{wanted}. Give both one scale"
            )
        least = SSIM_WINDOW + 2 * self.scale
        if min(large[1:3]) < least:
            raise DataError(
                f"target has shape {large}; to be scored it needs at least {least} x {least} "
                "pixels. Take larger crops"
            )

    def from_view(self, outputs: jax.Array, view: View) -> jax.Array:
        """Mirrored back. Errors: ConfigError for a window."""
        if view.window is not None:
            raise ConfigError(
                f"tta: {type(self).__name__}: the picture made of a window is none of the whole; "
                "take tta='flip'"
            )
        return jnp.flip(outputs, 2) if view.mirrored else outputs

    def ensemble(self, outputs: list) -> jax.Array:
        """The mean of the models' pictures."""
        return mean_of(outputs)

    def _scores(self, image: jax.Array, truth: jax.Array, prefix: str) -> dict[str, jax.Array]:
        """PSNR and SSIM [B] of the luma without its frame."""
        image, truth = (self._luma(jnp.clip(picture, 0.0, 1.0)) for picture in (image, truth))
        psnr = jnp.minimum(image_quality.psnr(image, truth), MOST_DECIBELS)
        return {f"{prefix}psnr": psnr, f"{prefix}ssim": image_quality.ssim(image, truth)}

    def _luma(self, image: jax.Array) -> jax.Array:
        return image_quality.shave(
            image_quality.luma(image) if image.shape[-1] == 3 else image, self.scale
        )
