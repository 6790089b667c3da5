"""Checks of what enters a model, where a wrong shape would otherwise fail far away and
obscurely.
"""

import jax

from jaxcnn.errors import ConfigError


def require_image(
    model: str,
    image: jax.Array,
    *,
    sizes: tuple[tuple[int, int], ...] = (),
    at_least: int = 1,
    channels: int | None = None,
) -> None:
    """Raise ConfigError unless `image` is [B, H, W, C] with (H, W) among `sizes`, at least
    `at_least`, and C = `channels`.
    """
    shape = tuple(image.shape)
    height_width = " or ".join(f"{h}x{w}" for h, w in sizes) or f"at least {at_least}x{at_least}"
    rule = f"images [B, H, W, C] of {height_width}" + (
        f" with C = {channels}" if channels is not None else ""
    )
    good = (
        len(shape) == 4
        and (not sizes or shape[1:3] in sizes)
        and min(shape[1:3]) >= at_least
        and (channels is None or shape[3] == channels)
    )
    if not good:
        raise ConfigError(
            f"{model} expects {rule}, found shape {shape}; resize or convert the images in the "
            "data set, or choose another model"
        )
