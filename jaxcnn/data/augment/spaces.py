"""What the published augmentation policies choose from: operations, how strong each may be, and
AutoAugment's sub-policies.

Of an operation with magnitude m in {0, …, top} the argument is `neutral + reach * m / top`, the
sign of `reach` drawn where it is `signed`. Arguments are those of the operations: shear_x, shear_y
a slope; translate_x, translate_y a share of the image's width or height; rotate degrees;
brightness, color (saturation), contrast, sharpness a factor; posterize bits, rounded; solarize a
threshold in [0, 1]. The others take none.
"""

from collections.abc import Mapping
from typing import NamedTuple

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
    "invert",
)


class Range(NamedTuple):
    """See the module."""

    neutral: float = 0.0
    reach: float = 0.0
    signed: bool = False


Space = Mapping[str, Range]


def _space(
    *, shear: float, translate: float, degrees: float, enhance: Range, bits: float
) -> dict[str, Range]:
    """The 14 operations of RandAugment with these reaches."""
    return {
        "identity": Range(),
        "shear_x": Range(0, shear, signed=True),
        "shear_y": Range(0, shear, signed=True),
        "translate_x": Range(0, translate, signed=True),
        "translate_y": Range(0, translate, signed=True),
        "rotate": Range(0, degrees, signed=True),
        "brightness": enhance,
        "color": enhance,
        "contrast": enhance,
        "sharpness": enhance,
        "posterize": Range(8, -bits),
        "solarize": Range(1, -1),
        "autocontrast": Range(),
        "equalize": Range(),
    }


# 150 pixels of images of 331, in which AutoAugment and RandAugment were searched
_TRANSLATE = 150 / 331
# E. Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space"
# (2020), section 3; enhancing both up and down, as TrivialAugment's and torchvision's code have it
RAND_AUGMENT = _space(
    shear=0.3, translate=_TRANSLATE, degrees=30, enhance=Range(1, 0.9, signed=True), bits=4
)
# S. Müller and F. Hutter, "TrivialAugment: tuning-free yet state-of-the-art data augmentation"
# (2021), table 1 (wide). Its translation is by pixels, which trivial_augment fills in
TRIVIAL_WIDE = _space(
    shear=0.99, translate=1, degrees=135, enhance=Range(1, 0.99, signed=True), bits=6
)
# E. Cubuk et al., "AutoAugment: learning augmentation strategies from data" (2019), table 6
AUTO_AUGMENT = _space(
    shear=0.3, translate=_TRANSLATE, degrees=30, enhance=Range(0.1, 1.8), bits=4
) | {"invert": Range()}
# D. Hendrycks et al., "AugMix: a simple data processing method to improve robustness and
# uncertainty" (2020), section 3: no operation that ImageNet-C's corruptions have
AUG_MIX = {
    "shear_x": Range(0, 0.3, signed=True),
    "shear_y": Range(0, 0.3, signed=True),
    "translate_x": Range(0, 1 / 3, signed=True),
    "translate_y": Range(0, 1 / 3, signed=True),
    "rotate": Range(0, 30, signed=True),
    "posterize": Range(4, -4),
    "solarize": Range(1, -1),
    "autocontrast": Range(),
    "equalize": Range(),
}


def parse(table: str) -> tuple[tuple[tuple[str, float, int], ...], ...]:
    """Sub-policies, one a line: ((operation, probability, magnitude), …)."""
    policies = []
    for line in table.strip().splitlines():
        words = line.split()
        triples = zip(words[::3], words[1::3], words[2::3], strict=True)
        policies.append(tuple((name, float(rate), int(level)) for name, rate, level in triples))
    return tuple(policies)


# Cubuk et al. 2019, tables 7, 9 and 8: operation, probability, magnitude (of 9); twice
POLICIES = {
    "cifar10": parse("""
        invert       0.1 7  contrast     0.2 6
        rotate       0.7 2  translate_x  0.3 9
        sharpness    0.8 1  sharpness    0.9 3
        shear_y      0.5 8  translate_y  0.7 9
        autocontrast 0.5 8  equalize     0.9 2
        shear_y      0.2 7  posterize    0.3 7
        color        0.4 3  brightness   0.6 7
        sharpness    0.3 9  brightness   0.7 9
        equalize     0.6 5  equalize     0.5 1
        contrast     0.6 7  sharpness    0.6 5
        color        0.7 7  translate_x  0.5 8
        equalize     0.3 7  autocontrast 0.4 8
        translate_y  0.4 3  sharpness    0.2 6
        brightness   0.9 6  color        0.2 8
        solarize     0.5 2  invert       0.0 3
        equalize     0.2 0  autocontrast 0.6 0
        equalize     0.2 8  equalize     0.6 4
        color        0.9 9  equalize     0.6 6
        autocontrast 0.8 4  solarize     0.2 8
        brightness   0.1 3  color        0.7 0
        solarize     0.4 5  autocontrast 0.9 3
        translate_y  0.9 9  translate_y  0.7 9
        autocontrast 0.9 2  solarize     0.8 3
        equalize     0.8 8  invert       0.1 3
        translate_y  0.7 9  autocontrast 0.9 1
    """),
    "imagenet": parse("""
        posterize    0.4 8  rotate       0.6 9
        solarize     0.6 5  autocontrast 0.6 5
        equalize     0.8 8  equalize     0.6 3
        posterize    0.6 7  posterize    0.6 6
        equalize     0.4 7  solarize     0.2 4
        equalize     0.4 4  rotate       0.8 8
        solarize     0.6 3  equalize     0.6 7
        posterize    0.8 5  equalize     1.0 2
        rotate       0.2 3  solarize     0.6 8
        equalize     0.6 8  posterize    0.4 6
        rotate       0.8 8  color        0.4 0
        rotate       0.4 9  equalize     0.6 2
        equalize     0.0 7  equalize     0.8 8
        invert       0.6 4  equalize     1.0 8
        color        0.6 4  contrast     1.0 8
        rotate       0.8 8  color        1.0 2
        color        0.8 8  solarize     0.8 7
        sharpness    0.4 7  invert       0.6 8
        shear_x      0.6 5  equalize     1.0 9
        color        0.4 0  equalize     0.6 3
        equalize     0.4 7  solarize     0.2 4
        solarize     0.6 5  autocontrast 0.6 5
        invert       0.6 4  equalize     1.0 8
        color        0.6 4  contrast     1.0 8
        equalize     0.8 8  equalize     0.6 3
    """),
    "svhn": parse("""
        shear_x      0.9 4  invert       0.2 3
        shear_y      0.9 8  invert       0.7 5
        equalize     0.6 5  solarize     0.6 6
        invert       0.9 3  equalize     0.6 3
        equalize     0.6 1  rotate       0.9 3
        shear_x      0.9 4  autocontrast 0.8 3
        shear_y      0.9 8  invert       0.4 5
        shear_y      0.9 5  solarize     0.2 6
        invert       0.9 6  autocontrast 0.8 1
        equalize     0.6 3  rotate       0.9 3
        shear_x      0.9 4  solarize     0.3 3
        shear_y      0.8 8  invert       0.7 4
        equalize     0.9 5  translate_y  0.6 6
        invert       0.9 4  equalize     0.6 7
        contrast     0.3 3  rotate       0.8 4
        invert       0.8 5  translate_y  0.0 2
        shear_y      0.7 6  solarize     0.4 8
        invert       0.6 4  rotate       0.8 4
        shear_y      0.3 7  translate_x  0.9 3
        shear_x      0.1 6  invert       0.6 5
        solarize     0.7 2  translate_y  0.6 7
        shear_y      0.8 4  invert       0.8 8
        shear_x      0.7 9  translate_y  0.8 3
        shear_y      0.8 5  autocontrast 0.7 3
        shear_x      0.7 2  invert       0.1 5
    """),
}
