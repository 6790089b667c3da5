"""Operations of light and colour, and the published policies made of them, against Pillow, scipy
and colorsys. Against torchvision: test_torchvision_operations.py.
"""

import colorsys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from jaxcnn.data import augment
from jaxcnn.data.augment import operations, policies, spaces
from jaxcnn.errors import ConfigError

KEY = jax.random.key(3)


def pictures(count=6, size=(20, 24), seed=0):
    """Bytes [count, *size, 3]: clouds of several ranges, the first one flat, the second grey."""
    random = np.random.default_rng(seed)
    clouds = ndimage.gaussian_filter(random.normal(size=(count, *size, 3)), (0, 2, 2, 0.5))
    low, high = (f(clouds, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    ends = np.sort(random.integers(0, 256, (count, 2, 1, 1, 1)), axis=1)
    out = ends[:, 0] + (clouds - low) / (high - low) * (ends[:, 1] - ends[:, 0])
    out[0], out[1] = 77, out[1].mean(-1, keepdims=True)
    return out.round().astype(np.uint8)


def unit(array):
    return jnp.asarray(np.asarray(array) / 255, jnp.float32)


def whole(count, value):
    return jnp.full((count,), value, jnp.float32)


# name: (ours, Pillow's, tolerance in grey levels: Pillow rounds to bytes on the way)
PILLOW = {
    "brightness": (operations.brightness, lambda p, x: ImageEnhance.Brightness(p).enhance(x), 1.01),
    "contrast": (operations.contrast, lambda p, x: ImageEnhance.Contrast(p).enhance(x), 1.6),
    "saturation": (operations.saturation, lambda p, x: ImageEnhance.Color(p).enhance(x), 1.6),
    "sharpness": (operations.sharpness, lambda p, x: ImageEnhance.Sharpness(p).enhance(x), 1.6),
    "posterize": (operations.posterize, lambda p, x: ImageOps.posterize(p, int(x)), 0.01),
    "solarize": (
        lambda image, x: operations.solarize(image, x / 255),
        lambda p, x: ImageOps.solarize(p, x),
        0.01,
    ),
    "invert": (lambda image, _: operations.invert(image), lambda p, _: ImageOps.invert(p), 0.01),
    "equalize": (
        lambda image, _: operations.equalize(image),
        lambda p, _: ImageOps.equalize(p),
        0.01,
    ),
    "autocontrast": (
        lambda image, _: operations.autocontrast(image),
        lambda p, _: ImageOps.autocontrast(p),
        1.01,
    ),
}
AMOUNTS = {"posterize": (1, 4, 8), "solarize": (0, 100, 255.5)}


@pytest.mark.parametrize(
    "name, amount", [(name, x) for name in PILLOW for x in AMOUNTS.get(name, (0.1, 1.9))]
)
def test_operations_equal_pillows(name, amount):
    ours, theirs, tolerance = PILLOW[name]
    images = pictures()
    out = np.asarray(ours(unit(images), whole(len(images), amount))) * 255
    for image, row in zip(images, out, strict=True):
        expected = np.asarray(theirs(Image.fromarray(image), amount), np.float64)
        assert np.abs(row - expected).max() < tolerance


def test_each_row_has_its_own_amount():
    images = unit(pictures(2)[1:].repeat(2, 0))
    out = operations.brightness(images, jnp.array((0.5, 1.0), jnp.float32))
    np.testing.assert_allclose(out[0] * 2, out[1], atol=1e-6)
    np.testing.assert_allclose(operations.posterize(images, whole(2, 8.0)), images, atol=1e-6)


@pytest.mark.parametrize("turns", [-0.4, 0.0, 1 / 3, 0.9])
def test_hue_turns_as_in_colorsys(turns):
    image = np.random.default_rng(0).uniform(size=(1, 3, 5, 3))
    image[0, 0, :3] = [[0.2, 0.2, 0.2], [1, 0, 0], [0.5, 0.5, 0.1]]
    out = np.asarray(operations.hue(jnp.asarray(image, jnp.float32), whole(1, turns)))
    for pixel, ours in zip(image.reshape(-1, 3), out.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        theirs = colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value)
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_hue_of_other_channels():
    grey = jnp.ones((1, 2, 2, 1), jnp.float32)
    np.testing.assert_array_equal(operations.hue(grey, whole(1, 0.3)), grey)
    with pytest.raises(ConfigError, match="4 channels have no hue"):
        operations.hue(jnp.ones((1, 2, 2, 4), jnp.float32), whole(1, 0.3))


def test_blur_equals_scipy():
    image = np.random.default_rng(0).uniform(size=(2, 14, 9, 2)).astype(np.float32)
    sigma = np.array((0.7, 2.0), np.float32)
    out = operations.gaussian_blur(jnp.asarray(image), jnp.asarray(sigma), size=7)
    for row in range(2):
        theirs = ndimage.gaussian_filter(
            image[row].astype(np.float64), (sigma[row], sigma[row], 0), mode="mirror", radius=3
        )
        np.testing.assert_allclose(out[row], theirs, atol=1e-5)
    with pytest.raises(ConfigError, match="size is 4; it is odd"):
        operations.gaussian_blur(jnp.asarray(image), jnp.asarray(sigma), size=4)


@pytest.mark.parametrize(
    "name", ["posterize", "solarize", "equalize", "autocontrast", "invert", "blur"]
)
def test_random_ones_happen_as_often_as_asked(name):
    images = 0.5 + 0.4 * unit(np.repeat(pictures(3)[2:], 200, 0)[:, :6, :6])
    out = np.asarray(jax.jit(getattr(augment, name))(KEY, {"image": images})["image"])
    changed = (out != np.asarray(images)).any((1, 2, 3)).mean()
    assert 0.35 < changed < 0.65  # rate 0.5; solarize may find no value above its threshold
    assert out.min() >= 0
    assert out.max() <= 1


def test_salt_and_pepper_are_halves_of_their_share():
    batch = {"image": jnp.full((4, 50, 50, 3), 0.5, jnp.float32)}
    out = np.asarray(augment.salt_and_pepper(KEY, batch, share=0.2)["image"])
    assert (out == 1).mean() == pytest.approx(0.1, abs=0.01)
    assert (out == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert (out == out[..., :1]).all(), "all channels of a pixel together"


def test_grid_mask_fills_its_share_in_squares():
    batch = {"image": jnp.ones((200, 48, 48, 1), jnp.float32)}
    mask = jax.jit(partial(augment.grid_mask, unit=(0.25, 0.25), ratio=0.5))
    out = np.asarray(mask(KEY, batch)["image"])
    filled = (out == 0).mean((1, 2, 3))
    assert (filled > 0).mean() == pytest.approx(0.7, abs=0.1)
    np.testing.assert_allclose(filled[filled > 0], 0.25, atol=1e-6)  # 6 x 6 of 12 x 12
    np.testing.assert_array_equal(out[:, :36, :36], out[:, 12:, 12:])  # it repeats


# The published policies


def test_the_tables_are_complete():
    assert set(spaces.POLICIES) == {"cifar10", "imagenet", "svhn"}
    for table in spaces.POLICIES.values():
        assert len(table) == 25
        for policy in table:
            assert len(policy) == 2
            for name, rate, level in policy:
                assert name in spaces.AUTO_AUGMENT
                assert 0 <= rate <= 1
                assert 0 <= level <= 9
    assert len(spaces.RAND_AUGMENT) == len(spaces.TRIVIAL_WIDE) == 14
    assert set(spaces.AUTO_AUGMENT) == set(spaces.OPERATIONS)


def drawn(monkeypatch, function, **options):
    """(the operations' names, their arguments) of 4,000 rows, for each layer of a policy."""
    layers = []

    def spy(batch, chosen, argument, space, **_):
        layers.append((np.array(spaces.OPERATIONS)[np.asarray(chosen)], np.asarray(argument)))
        return batch

    monkeypatch.setattr(policies, "apply", spy)
    function(KEY, {"image": jnp.zeros((4000, 40, 50, 1), jnp.float32)}, **options)
    return layers


def test_trivial_augment_draws_evenly_and_widely(monkeypatch):
    ((names, arguments),) = drawn(monkeypatch, augment.trivial_augment)
    for name in spaces.TRIVIAL_WIDE:
        share = (names == name).mean()
        assert abs(share - 1 / 14) < 5 * (1 / 14 * 13 / 14 / 4000) ** 0.5, name
    ends = {
        "shear_x": (-0.99, 0.99),
        "translate_x": (-32 / 50, 32 / 50),
        "translate_y": (-32 / 40, 32 / 40),
        "rotate": (-135, 135),
        "color": (0.01, 1.99),
        "posterize": (2, 8),
        "solarize": (0, 1),
    }
    for name, (low, high) in ends.items():
        own = arguments[names == name]
        assert (own.min(), own.max()) == pytest.approx((low, high), abs=1e-5), name
        assert len(np.unique(own.round(5))) > (6 if name == "posterize" else 25)


def test_rand_augment_has_one_magnitude(monkeypatch):
    layers = drawn(monkeypatch, augment.rand_augment, count=3, magnitude=10)
    assert len(layers) == 3
    assert (layers[0][0] != layers[1][0]).mean() > 0.8
    for names, arguments in layers:
        np.testing.assert_allclose(np.unique(arguments[names == "rotate"]), [-10, 10], atol=1e-5)
        np.testing.assert_allclose(arguments[names == "solarize"], 2 / 3, atol=1e-5)
        np.testing.assert_allclose(arguments[names == "posterize"], 7)  # 8 - 4 / 3, rounded
    with pytest.raises(ConfigError, match=r"magnitude is 31; it lies in \[0, top=30\]"):
        augment.rand_augment(KEY, {}, magnitude=31)


@pytest.mark.parametrize("policy", spaces.POLICIES)
def test_auto_augment_draws_by_its_table(monkeypatch, policy):
    layers = drawn(monkeypatch, augment.auto_augment, policy=policy)
    for step, (names, _) in enumerate(layers):
        for name in set(spaces.OPERATIONS) - {"identity"}:
            rates = [sub[step][1] for sub in spaces.POLICIES[policy] if sub[step][0] == name]
            expected = sum(rates) / 25
            spread = max((expected * (1 - expected) / 4000) ** 0.5, 1e-4)
            assert abs((names == name).mean() - expected) < 5 * spread, (step, name)


def test_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match=r"policy is 'cifar'.*cifar10"):
        augment.auto_augment(KEY, {}, policy="cifar")


ARGUMENTS = {
    **dict.fromkeys(("identity", "autocontrast", "equalize", "invert"), 0.0),
    **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), 1.7),
    **{"shear_x": 0.3, "shear_y": -0.23, "translate_x": 0.25, "translate_y": -0.2, "rotate": 30.0},
    **{"posterize": 3.0, "solarize": 0.5},
}


def applied(images, names, **options):
    """The operations of these names, one a row."""
    chosen = jnp.array([spaces.OPERATIONS.index(name) for name in names], jnp.int32)
    argument = jnp.array([ARGUMENTS[name] for name in names], jnp.float32)
    batch = {"image": images}
    apply = partial(policies.apply, space=spaces.AUTO_AUGMENT, **options)
    return jax.jit(apply)(batch, chosen, argument)["image"]


def test_each_row_gets_its_own_operation():
    """The geometric ones against Pillow's nearest pixels, those of light against themselves."""
    image = pictures(3)[2]
    names = spaces.OPERATIONS
    out = np.asarray(applied(unit(image[None].repeat(len(names), 0)), names, order=0)) * 255
    height, width = image.shape[:2]
    backward = {  # Pillow: (a, b, c, d, e, f), x = a x' + b y' + c, y = d x' + e y' + f
        "shear_x": (1, -0.3, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.23, 1, 0),
        "translate_x": (1, 0, -0.25 * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 0.2 * height),
    }
    for name, row in zip(names, out, strict=True):
        if name in PILLOW or name in ("color",):
            ours = PILLOW["saturation" if name == "color" else name][0]
            amount = ARGUMENTS[name] * (255 if name == "solarize" else 1)
            expected = np.asarray(ours(unit(image[None]), whole(1, amount))[0]) * 255
        elif name == "identity":
            expected = image
        elif name == "rotate":
            expected = np.asarray(Image.fromarray(image).rotate(30.0))
        else:
            size = (width, height)
            affine = Image.Transform.AFFINE
            expected = np.asarray(Image.fromarray(image).transform(size, affine, backward[name]))
        # a place on the border of two pixels may be either's
        wrong = (np.abs(row - expected) > 0.01).any(-1).mean()
        assert wrong < (0.02 if name in backward or name == "rotate" else 1e-9), name


def test_policies_move_labels_along():
    """A white square and the middle of it: still one another's after five random policies."""
    image = np.zeros((60, 32, 32, 1), np.float32)
    image[:, 13:19, 13:19] = 1
    batch = {
        "image": jnp.asarray(image),
        "points": jnp.full((60, 1, 2), 0.5, jnp.float32),
        "segmentation": jnp.asarray(image[..., 0], jnp.int32),
    }
    space = {n: r for n, r in spaces.TRIVIAL_WIDE.items() if n in policies.MOVES}
    out = jax.jit(lambda k, b: augment.trivial_augment(k, b, space=space, pixels=8))(KEY, batch)
    bright = np.asarray(out["image"][..., 0])
    places, moved = np.asarray(out["points"])[:, 0] * 32, 0
    for row, (y, x) in enumerate(places):
        if not 10 < min(y, x) <= max(y, x) < 22:  # the square may be cut
            continue
        centre = np.array(ndimage.center_of_mass(bright[row])) + 0.5
        assert np.abs(centre - (y, x)).max() < 0.1
        assert ((bright[row] > 0.5) != (np.asarray(out["segmentation"])[row] > 0)).sum() < 12
        moved += np.abs(centre - 16).max() > 0.5
    assert moved > 10


def test_aug_mix():
    images = unit(pictures(40, size=(8, 9), seed=1))

    def mixed(space):
        function = partial(augment.aug_mix, width=2, depth=1, space=space)
        return jax.jit(function)(KEY, {"image": images})["image"]

    # all shares together are 1
    np.testing.assert_allclose(mixed({"identity": spaces.Range()}), images, atol=1e-6)
    out = mixed({name: spaces.AUG_MIX[name] for name in ("rotate", "posterize")})
    difference = np.abs(np.asarray(out - images)).mean((1, 2, 3))
    assert len(np.unique(difference.round(6))) > 30
    with pytest.raises(ConfigError, match=r"aug_mix: the batch has boxes.*trivial_augment"):
        augment.aug_mix(KEY, {"image": images, "boxes": jnp.zeros((40, 1, 4), jnp.float32)})


def test_repeat():
    batch = {"image": jnp.zeros((6, 1, 1, 1)), "label": jnp.arange(6)}
    assert augment.repeat(KEY, batch, times=3)["label"].tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ConfigError, match=r"6 rows cannot be 4 of each"):
        augment.repeat(KEY, batch, times=4)
