"""Windows of pictures that are drawn anew at each visit, on the host, while they are decoded."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxcnn.errors import ConfigError

Window = tuple[int, int, int, int]  # (top, left, bottom, right) in pixels
Cropping = Callable[[tuple[int, int]], Window]  # from a picture's (height, width)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10


def croppings(
    draws: Sequence[int],
    *,
    area: tuple[float, float],
    aspect: tuple[float, float] | None,
) -> list[Cropping]:
    """The windows of several visits, see `cropping`; `aspect` None for ASPECT."""
    return [cropping(draw, area=area, aspect=aspect or ASPECT) for draw in draws]


def cropping(draw: int, *, area: tuple[float, float], aspect: tuple[float, float]) -> Cropping:
    """The window of a visit, a function of `draw` and the picture's (height, width) alone.

    C. Szegedy et al., "Going deeper with convolutions" (2015), section 6. The window's area is
    `area` of the picture's, uniform; width over height is log-uniform in `aspect`; sides are
    rounded to pixels. One that would stick out is drawn again, after ten times the largest in the
    middle that has an aspect ratio of the range is taken.
    """

    def window(size: tuple[int, int]) -> Window:
        height, width = size
        random = np.random.Generator(np.random.Philox(key=draw))
        for _ in range(TRIES):
            pixels = height * width * random.uniform(*area)
            ratio = math.exp(random.uniform(*np.log(aspect)))
            tall, wide = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < tall <= height and 0 < wide <= width:
                top = int(random.integers(height - tall + 1))
                left = int(random.integers(width - wide + 1))
                return top, left, top + tall, left + wide
        ratio = min(max(width / height, aspect[0]), aspect[1])
        tall = max(1, min(height, round(width / ratio)))
        wide = max(1, min(width, round(height * ratio)))
        top, left = (height - tall) // 2, (width - wide) // 2
        return top, left, top + tall, left + wide

    return window


def check_cropping(
    area: tuple[float, float] | None, aspect: tuple[float, float] | None, *, where: str
) -> None:
    """ConfigError unless 0 < area[0] <= area[1] <= 1 and 0 < aspect[0] <= aspect[1], finite; None
    for what is not given."""
    if area is not None and not (len(area) == 2 and 0 < area[0] <= area[1] <= 1):
        raise ConfigError(
            f"{where}: crop_area is {area}; it is the least and the largest share of the picture "
            "that a window has, in (0, 1], such as (0.08, 1.0), or None for whole pictures"
        )
    if aspect is not None and not (len(aspect) == 2 and 0 < aspect[0] <= aspect[1] < math.inf):
        raise ConfigError(
            f"{where}: crop_aspect is {aspect}; it is the least and the largest width over height "
            "that a window has, such as (0.75, 1.333)"
        )
    if area is None and aspect is not None:
        raise ConfigError(
            f"{where}: crop_aspect is {aspect}, and no windows are drawn; give crop_area, such as "
            "(0.08, 1.0), too"
        )
