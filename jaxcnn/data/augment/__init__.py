"""Random changes to training images, on the device: `f(key, batch, *, options) -> batch`, pure, for
`jax.jit` and `jax.vmap`.

A batch is a dict of arrays with a leading axis B, `image` [B, H, W, C] float in [0, 1] with any
number of channels. Each example draws its own parameters. Shapes (but for the crops), dtypes and
the range [0, 1] are kept. What happens to the other entries follows from the table of entries
(`jaxcnn.core.batch`):

* functions that move pixels move all images of an example, maps, boxes, points and polygons along
  (`jaxcnn.data.geometry`, `jaxcnn.data.labels`);
* functions of light and colour, noise and erasing change `image` alone: what is wanted of the
  model ("target") and other views of it stay as they are;
* mixing mixes all images, and the labels with them;
* all other entries, `mask` among them, are handed through untouched.

An experiment names them with their options, in order: `augment=(partial(augment.shift, pixels=2),
augment.flip_left_right)`. Amounts and what is done with them are apart: `operations` has the bare
functions of images, `policies` the published mixtures of them.
"""

from jaxcnn.data.augment.captions import draw_caption
from jaxcnn.data.augment.composition import chain, repeat
from jaxcnn.data.augment.detection import copy_paste, mosaic, multi_scale
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
from jaxcnn.data.augment.policies import (
    aug_mix,
    auto_augment,
    rand_augment,
    trivial_augment,
)

__all__ = [
    "IMAGENET_EIGENVALUES",
    "IMAGENET_EIGENVECTORS",
    "add_noise",
    "affine",
    "aug_mix",
    "auto_augment",
    "autocontrast",
    "blur",
    "chain",
    "copy_paste",
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
    "mosaic",
    "multi_scale",
    "perspective",
    "posterize",
    "rand_augment",
    "repeat",
    "resize",
    "rotate",
    "salt_and_pepper",
    "scale",
    "shear",
    "shift",
    "solarize",
    "standardize",
    "trivial_augment",
]
