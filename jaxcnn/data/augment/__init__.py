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
    elastic,
    flip_left_right,
    flip_up_down,
    perspective,
    resize,
    rotate,
    scale,
    shear,
    shift,
)
from jaxcnn.data.augment.mixing import (
    cutmix,
    cutout,
    erase,
    grid_mask,
    mixup,
)
from jaxcnn.data.augment.photometric import (
    IMAGENET_EIGENVALUES,
    IMAGENET_EIGENVECTORS,
    add_noise,
    autocontrast,
    blur,
    equalize,
    invert,
    jitter_brightness,
    jitter_color,
    jitter_contrast,
    jitter_gamma,
    jitter_hue,
    jitter_lighting,
    jitter_saturation,
    jitter_sharpness,
    posterize,
    salt_and_pepper,
    solarize,
    standardize,
)

__all__ = [
    "IMAGENET_EIGENVALUES",
    "IMAGENET_EIGENVECTORS",
    "add_noise",
    "affine",
    "autocontrast",
    "blur",
    "chain",
    "crop",
    "crop_resized",
    "cutmix",
    "cutout",
    "draw_caption",
    "elastic",
    "equalize",
    "erase",
    "flip_left_right",
    "flip_up_down",
    "grid_mask",
    "invert",
    "jitter_brightness",
    "jitter_color",
    "jitter_contrast",
    "jitter_gamma",
    "jitter_hue",
    "jitter_lighting",
    "jitter_saturation",
    "jitter_sharpness",
    "mixup",
    "perspective",
    "posterize",
    "resize",
    "rotate",
    "salt_and_pepper",
    "scale",
    "shear",
    "shift",
    "solarize",
    "standardize",
]
