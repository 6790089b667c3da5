"""Real photographs that come with scikit-image: backgrounds of scenes, and pictures to enlarge or
to restyle.

scikit-image states their origin: astronaut, hubble_deep_field and rocket are NASA's or in the
public domain, most others CC0, and motorcycle_left is of D. Scharstein et al., "High-resolution
stereo datasets with subpixel-accurate ground truth" (2014). They are read where scikit-image is
installed, never copied.
"""

import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jaxcnn.errors import ConfigError, DataError, did_you_mean

PHOTOS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cell": "cell.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "moon": "moon.png",
    "motorcycle_left": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
# Backgrounds of scenes: what is trained on is never evaluated on.
TRAIN_BACKGROUNDS = ("coffee", "brick", "grass", "gravel", "rocket", "chelsea")
EVAL_BACKGROUNDS = ("astronaut", "hubble_deep_field", "motorcycle_left")


@functools.lru_cache(maxsize=32)
def read_photo(name: str, *, channels: int = 3) -> np.ndarray:
    """One of PHOTOS, or the image file at a path, at its own size: uint8 [H, W, channels], not to
    be written to.

    Errors: ConfigError for a name that is neither; DataError where scikit-image or the picture is
    missing.
    """
    from jaxcnn.data.files.images import read_image

    if name in PHOTOS:
        path = photo_folder() / PHOTOS[name]
    elif Path(name).suffix:
        path = Path(name).expanduser()
    else:
        raise ConfigError(
            f"photo {name!r} is unknown{did_you_mean(name, PHOTOS)}; give a file, or one of "
            f"{', '.join(PHOTOS)}"
        )
    image = read_image(path, size=None, channels=channels)
    image.flags.writeable = False
    return image


def photo_folder() -> Path:
    """The folder of scikit-image's pictures; nothing of the package is imported. Errors: DataError
    if it is not installed.
    """
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the photographs come with scikit-image, which is not installed; pip install "
            "'jaxcnn[photos]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data"
