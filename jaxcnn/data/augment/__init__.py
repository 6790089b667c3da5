"""Random changes to training images, on the device: `f(key, batch, *, options) -> batch`, pure, for
`jax.jit` and `jax.vmap`.

A batch is a dict of arrays with a leading axis B (entries: see `jaxcnn.data.geometry`), `image` [B,
H, W, C] float in [0, 1] with any number of channels. Each example draws its own parameters. Shapes
(but for the crops), dtypes and the range [0, 1] are kept; boxes, points, segmentation and instance
masks move along with the image; all other entries, `mask` among them, are handed through untouched.
An experiment names them with their options, in order: `augment=(partial(augment.shift, pixels=2),
augment.flip_left_right)`.
"""

from jaxcnn.data.augment.captions import draw_caption
from jaxcnn.data.augment.composition import chain
from jaxcnn.data.augment.geometric import (
    affine,
    crop,
    crop_resized,
    flip_left_right,
    flip_up_down,
    resize,
    rotate,
    scale,
    shift,
)
from jaxcnn.data.augment.mixing import (
    cutmix,
    cutout,
    erase,
    mixup,
)
from jaxcnn.data.augment.photometric import (
    IMAGENET_EIGENVALUES,
    IMAGENET_EIGENVECTORS,
    add_noise,
    jitter_brightness,
    jitter_color,
    jitter_contrast,
    jitter_gamma,
    jitter_lighting,
    jitter_saturation,
    standardize,
)

__all__ = [
    "IMAGENET_EIGENVALUES",
    "IMAGENET_EIGENVECTORS",
    "add_noise",
    "affine",
    "chain",
    "crop",
    "crop_resized",
    "cutmix",
    "cutout",
    "draw_caption",
    "erase",
    "flip_left_right",
    "flip_up_down",
    "jitter_brightness",
    "jitter_color",
    "jitter_contrast",
    "jitter_gamma",
    "jitter_lighting",
    "jitter_saturation",
    "mixup",
    "resize",
    "rotate",
    "scale",
    "shift",
    "standardize",
]
