"""Operations and published policies against torchvision's v2, where it is installed."""

import os

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxcnn.data import geometry, matrix
from jaxcnn.data.augment import operations, spaces
from tests.data.test_operations import PILLOW, applied, pictures, unit, whole
from tests.torchvision_peer import import_torchvision

# how many images are compared; set it to 1000 for the long comparison
COUNT = int(os.environ.get("JAXCNN_PARITY_IMAGES", "6"))

OTHERS = (
    *("hue", "blur", "gamma", "flip", "perspective", "elastic"),
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
)


def peers():
    """name: (ours of images [B, H, W, C], theirs of a tensor [C, H, W] float, and one of bytes if
    that is the one to be met).
    """
    torch = import_torchvision() and __import__("torch")
    from torchvision.transforms import InterpolationMode  # pyright: ignore
    from torchvision.transforms.v2 import functional as F  # pyright: ignore

    def quantized(function, *arguments):
        return lambda x: function((x * 255).round().to(torch.uint8), *arguments).float() / 255

    def amount(function, value):
        return lambda x: function(x, whole(len(x), value))

    size, rng = pictures(2).shape[1:3], np.random.default_rng(0)
    height, width = size
    ends = [[2, 1], [width - 4, 3], [width - 1, height - 2], [1, height - 5]]
    starts = [[0, 0], [width, 0], [width, height], [0, height]]
    place = matrix.perspective_matrices(
        jnp.asarray(np.array(ends)[None, :, ::-1], jnp.float32), size=size
    )
    field = ndimage.gaussian_filter(rng.normal(size=(*size, 2)), (3, 3, 0)).astype(np.float32) * 8
    theirs = torch.tensor(field[None, ..., ::-1] * 2 / np.array([width, height]), dtype=torch.float)

    def warp(x):
        return geometry.warp({"image": x}, jnp.tile(place, (len(x), 1, 1)))["image"]

    def displace(x):
        return geometry.displace({"image": x}, jnp.tile(field[None], (len(x), 1, 1, 1)))["image"]

    bilinear = InterpolationMode.BILINEAR
    table = {
        "brightness": (amount(operations.brightness, 1.6), lambda x: F.adjust_brightness(x, 1.6)),
        "contrast": (amount(operations.contrast, 0.3), lambda x: F.adjust_contrast(x, 0.3)),
        "saturation": (amount(operations.saturation, 1.8), lambda x: F.adjust_saturation(x, 1.8)),
        "sharpness": (amount(operations.sharpness, 1.9), lambda x: F.adjust_sharpness(x, 1.9)),
        "hue": (amount(operations.hue, -0.3), lambda x: F.adjust_hue(x, -0.3)),
        "posterize": (amount(operations.posterize, 3), quantized(F.posterize, 3)),
        "solarize": (amount(operations.solarize, 0.4), lambda x: F.solarize(x, 0.4)),
        "equalize": (operations.equalize, quantized(F.equalize)),
        "autocontrast": (operations.autocontrast, F.autocontrast),
        "invert": (operations.invert, F.invert),
        "blur": (
            lambda x: operations.gaussian_blur(x, whole(len(x), 1.3), size=7),
            lambda x: F.gaussian_blur(x, [7, 7], [1.3, 1.3]),
        ),
        "gamma": (lambda x: x ** jnp.float32(1.2), lambda x: F.adjust_gamma(x, 1.2)),
        "flip": (lambda x: jnp.flip(x, 2), F.horizontal_flip),
        "perspective": (warp, lambda x: F.perspective(x, starts, ends, interpolation=bilinear)),
        "elastic": (displace, lambda x: F.elastic(x, theirs, interpolation=bilinear)),
    }
    moves = {
        "shear_x": {"shear": [-np.degrees(np.arctan(0.3)), 0.0], "center": [0, 0]},
        "shear_y": {"shear": [0.0, -np.degrees(np.arctan(-0.23))], "center": [0, 0]},
        "translate_x": {"translate": [width // 4, 0]},
        "translate_y": {"translate": [0, -height // 5]},
        "rotate": {"angle": -30.0},
    }
    for name, options in moves.items():
        still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
        table[name] = (
            lambda x, name=name: applied(x, [name] * len(x)),
            lambda x, o=still | options: F.affine(x, **o, interpolation=bilinear),
        )
    return torch, table


@pytest.mark.parametrize("name", [*PILLOW, *OTHERS])
def test_operations_equal_torchvisions(name):
    torch, table = peers()
    ours, theirs = table[name]
    images = unit(pictures(COUNT, seed=5))
    expected = theirs(torch.tensor(np.asarray(images).transpose(0, 3, 1, 2)))
    difference = np.abs(np.asarray(ours(images)).transpose(0, 3, 1, 2) - expected.numpy())
    print(f"{name}: {difference.max() * 255:.4f} grey levels at most of {COUNT} images")
    assert difference.max() <= 1 / 255


def test_the_tables_equal_torchvisions():
    import_torchvision()
    from torchvision.transforms import v2  # pyright: ignore

    for name, table in spaces.POLICIES.items():
        theirs = v2.AutoAugment(v2.AutoAugmentPolicy[name.upper()])._policies
        for ours, other in zip(table, theirs, strict=True):
            for (operation, rate, level), (their_name, their_rate, their_level) in zip(
                ours, other, strict=True
            ):
                assert operation.replace("_", "") == their_name.lower()
                assert rate == their_rate
                assert their_level in (None, level)
