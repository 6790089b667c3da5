"""Augmentations against numpy, scipy and brute force; labels against the pixels that
they describe.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxcnn.data import augment, geometry, matrix
from jaxcnn.errors import ConfigError

KEY = jax.random.key(7)


def random_batch(count=6, size=(12, 10), channels=3, seed=0):
    """Images with labels of every kind, unrelated to the pixels."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(size=(count, 2, 2, 2)), axis=2).reshape(count, 2, 4)
    return {
        "image": jnp.asarray(rng.uniform(size=(count, *size, channels)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 5, count), jnp.int32),
        "boxes": jnp.asarray(corners, jnp.float32),
        "boxes_mask": jnp.ones((count, 2), jnp.float32),
        "points": jnp.asarray(rng.uniform(size=(count, 4, 2)), jnp.float32),
        "points_mask": jnp.ones((count, 4), jnp.float32),
        "segmentation": jnp.asarray(rng.integers(0, 4, (count, *size)), jnp.int32),
        "instance_masks": jnp.asarray(rng.integers(0, 2, (count, 2, *size)), jnp.float32),
        "mask": jnp.asarray(rng.integers(0, 2, count), jnp.float32),
    }


GEOMETRIC = {
    "shift": partial(augment.shift, pixels=3),
    "crop": partial(augment.crop, size=(8, 7), padding=1),
    "crop_resized": partial(augment.crop_resized, size=(9, 14)),
    "flip_left_right": partial(augment.flip_left_right, swap=(1, 0, 2, 3)),
    "flip_up_down": augment.flip_up_down,
    "rotate": partial(augment.rotate, degrees=40.0),
    "scale": partial(augment.scale, factor=(0.5, 2.0)),
    "affine": partial(augment.affine, degrees=20.0, factor=(0.8, 1.2), translation=0.1, shear=10.0),
}
PHOTOMETRIC = {
    "jitter_brightness": partial(augment.jitter_brightness, amount=0.9),
    "jitter_contrast": partial(augment.jitter_contrast, amount=0.9),
    "jitter_saturation": partial(augment.jitter_saturation, amount=0.9),
    "jitter_color": augment.jitter_color,
    "jitter_gamma": augment.jitter_gamma,
    "jitter_lighting": partial(augment.jitter_lighting, std=1.0),
    "add_noise": partial(augment.add_noise, std=0.5),
    "cutout": partial(augment.cutout, size=5),
    "erase": augment.erase,
}
MIXING = {"mixup": partial(augment.mixup, alpha=1.0), "cutmix": augment.cutmix}
ROW_BY_ROW = {**GEOMETRIC, **PHOTOMETRIC}
ALL = {**ROW_BY_ROW, **MIXING}
# shared by the tests: compiling is what takes their time
COMPILED = {name: jax.jit(function) for name, function in ALL.items()}
warp = jax.jit(geometry.warp, static_argnames=("size", "order", "swap"))
NEW_SIZE = {"crop": (8, 7), "crop_resized": (9, 14)}


def assert_equal(a, b):
    assert set(a) == set(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Every augmentation


@pytest.mark.parametrize(
    "dtype, channels", [(jnp.float32, 1), (jnp.bfloat16, 3), (jnp.bfloat16, 5)]
)
@pytest.mark.parametrize("name", ALL)
def test_shapes_dtypes_and_range_are_kept(name, dtype, channels):
    function = ALL[name]
    if name == "jitter_lighting":
        function = partial(
            function,
            eigenvalues=(0.2,) * channels,
            eigenvectors=tuple(map(tuple, np.eye(channels).tolist())),
        )
    batch = random_batch(channels=channels)
    batch["image"] = batch["image"].astype(dtype)
    out = jax.eval_shape(function, KEY, batch)
    for entry, before in batch.items():
        height, width = NEW_SIZE.get(name, (12, 10))
        shape = tuple({12: height, 10: width}.get(n, n) for n in before.shape)
        assert (out[entry].shape, out[entry].dtype) == (shape, before.dtype), entry
    assert set(out) - set(batch) == ({"label_b", "label_weight"} if name in MIXING else set())


@pytest.mark.parametrize("name", ALL)
def test_values_lie_in_range_and_the_same_key_gives_the_same(name):
    batch = random_batch()
    once, again = (COMPILED[name](KEY, batch) for _ in range(2))
    assert_equal(once, again)
    assert float(once["image"].min()) >= 0
    assert float(once["image"].max()) <= 1 + 1e-6
    for untouched in ("mask", "label"):
        np.testing.assert_array_equal(once[untouched], batch[untouched])
    others = [COMPILED[name](jax.random.key(n), batch)["image"] for n in range(3)]
    assert any(not np.array_equal(once["image"], other) for other in others)


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_rows_do_not_influence_each_other(name):
    """Replacing all rows but one leaves that one's result alone."""
    batch, other = random_batch(seed=0), random_batch(seed=1)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([b[:2], a[2:3], b[3:]]), batch, other)
    one, two = (jax.tree.map(lambda a: a[2], COMPILED[name](KEY, b)) for b in (batch, mixed))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), one, two)


@pytest.mark.parametrize("name", sorted(set(ROW_BY_ROW) - {"add_noise"}))
def test_each_row_draws_its_own(name):
    batch = jax.tree.map(lambda a: jnp.repeat(a[:1], 6, axis=0), random_batch())
    image = np.asarray(COMPILED[name](KEY, batch)["image"])
    assert len({row.tobytes() for row in image}) > 1


@pytest.mark.parametrize("name", ALL)
def test_vmap_equals_a_loop(name):
    batches = [random_batch(seed=n) for n in range(2)]
    keys = jax.random.split(KEY, 2)
    together = jax.jit(jax.vmap(ALL[name]))(keys, jax.tree.map(lambda *a: jnp.stack(a), *batches))
    for n in range(2):
        alone = COMPILED[name](keys[n], batches[n])
        jax.tree.map(
            partial(np.testing.assert_allclose, atol=1e-5),
            jax.tree.map(lambda a, n=n: a[n], together),
            alone,
        )


def test_chain_is_one_after_the_other_with_different_keys():
    batch = random_batch()
    once = augment.chain(
        KEY, batch, functions=(partial(augment.shift, pixels=2), augment.flip_left_right)
    )
    keys = jax.random.split(KEY)
    assert_equal(once, augment.flip_left_right(keys[1], augment.shift(keys[0], batch, pixels=2)))
    assert_equal(augment.chain(KEY, batch, functions=()), batch)


# Warp against others


def matrices_of(count, rows):
    return jnp.tile(jnp.asarray(rows, jnp.float32)[None], (count, 1, 1))


@pytest.mark.parametrize("dy, dx", [(0, 0), (2, -3), (-4, 1), (20, 0)])
def test_whole_pixel_shift_is_exact(dy, dx):
    batch = random_batch(size=(8, 9))
    out = warp(batch, matrices_of(6, [[1, 0, dy], [0, 1, dx]]))
    for entry, axes in (("image", (1, 2)), ("segmentation", (1, 2)), ("instance_masks", (2, 3))):
        expected = np.roll(np.asarray(batch[entry]), (dy, dx), axes)
        rows, columns = np.arange(8) - dy, np.arange(9) - dx
        inside = ((rows >= 0) & (rows < 8))[:, None] & ((columns >= 0) & (columns < 9))[None]
        np.testing.assert_array_equal(
            out[entry],
            expected * (inside[..., None] if entry == "image" else inside).astype(expected.dtype),
        )


@pytest.mark.parametrize("axis, rows", [(1, [[-1, 0, 8], [0, 1, 0]]), (2, [[1, 0, 0], [0, -1, 9]])])
def test_warp_flips_exactly(axis, rows):
    batch = random_batch(size=(8, 9))
    out = warp(batch, matrices_of(6, rows))
    np.testing.assert_array_equal(out["image"], np.flip(np.asarray(batch["image"]), axis))
    np.testing.assert_array_equal(
        out["segmentation"], np.flip(np.asarray(batch["segmentation"]), axis)
    )


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_equal_rot90(turns):
    batch = random_batch(size=(9, 9))
    zero = jnp.zeros((6,), jnp.float32)
    matrices = matrix.affine_matrices(
        size=(9, 9), degrees=zero + 90.0 * turns, factor=zero + 1, shear=zero, offset=(zero, zero)
    )
    out = warp(batch, matrices)
    np.testing.assert_allclose(out["image"], np.rot90(batch["image"], turns, (1, 2)), atol=1e-5)
    np.testing.assert_array_equal(
        out["segmentation"], np.rot90(batch["segmentation"], turns, (1, 2))
    )


@pytest.mark.parametrize("size", [None, (7, 15)])
def test_warp_equals_scipy(size):
    batch = random_batch(size=(11, 13))
    rng = np.random.default_rng(3)
    linear = np.eye(2) + rng.uniform(-0.4, 0.4, (6, 2, 2))
    matrices = np.concatenate([linear, rng.uniform(-3, 3, (6, 2, 1))], axis=2).astype(np.float32)
    out = warp({"image": batch["image"]}, jnp.asarray(matrices), size=size, fill=0.25)["image"]
    for row in range(6):
        # scipy counts pixel centres as whole numbers and wants the way from output to input
        inverse = np.linalg.inv(matrices[row, :, :2].astype(np.float64))
        offset = inverse @ (0.5 - matrices[row, :, 2]) - 0.5
        for channel in range(3):
            expected = ndimage.affine_transform(
                np.asarray(batch["image"][row, :, :, channel], np.float64),
                inverse,
                offset,  # pyright: ignore[reportArgumentType]  (scipy takes one a dimension)
                output_shape=size or (11, 13),
                order=1,
                mode="grid-constant",
                cval=0.25,
            )
            np.testing.assert_allclose(out[row, :, :, channel], expected, atol=1e-5)


def test_stretch_equals_pillow():
    """A window of whole pixels, shrunk or magnified with smoothing, is Pillow's bilinear resize of
    it.
    """
    from PIL import Image

    image = np.random.default_rng(0).uniform(size=(16, 20)).astype(np.float32)
    stretch = jax.jit(geometry.stretch, static_argnames="size")
    for top, left, height, width, size in [(2, 3, 12, 15, (5, 6)), (4, 1, 6, 5, (16, 20))]:
        scale = [
            jnp.full((1,), n / m, jnp.float32) for n, m in zip(size, (height, width), strict=True)
        ]
        matrices = matrix.scale_matrices((scale[0], scale[1]), (-top * scale[0], -left * scale[1]))
        ours = stretch({"image": jnp.asarray(image)[None, :, :, None]}, matrices, size=size)[
            "image"
        ][0, :, :, 0]
        window = (left, top, left + width, top + height)
        theirs = Image.fromarray(image).resize(
            (size[1], size[0]), Image.Resampling.BILINEAR, box=window
        )
        np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-5)


def test_fast_paths_equal_warp():
    """Crops and flips move image and labels as the gathering warp does with the same matrices."""
    batch = random_batch(size=(8, 9))
    captured = []
    original = geometry.move_labels

    def spy(moved, matrices, **options):
        captured.append(matrices)
        return original(moved, matrices, **options)

    for function in (
        partial(augment.shift, pixels=3),
        augment.flip_left_right,
        augment.flip_up_down,
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(geometry, "move_labels", spy)
            out = function(KEY, batch)
        min_visible = 0.25 if function.__class__ is partial else 0.0
        assert_equal(out, geometry.warp(batch, captured.pop(), min_visible=min_visible))


# The labels say what the pixels say


def bright_rectangles(count=16, size=(40, 48)):
    """White rectangles on black with their boxes, masks, segmentation, and a point in
    each centre.
    """
    rng = np.random.default_rng(5)
    image, boxes = np.zeros((count, *size, 1), np.float32), np.zeros((count, 1, 4), np.float32)
    for row in range(count):
        top, left = rng.integers(10, 18), rng.integers(10, 20)
        bottom, right = top + rng.integers(6, 14), left + rng.integers(6, 16)
        image[row, top:bottom, left:right] = 1
        boxes[row, 0] = np.array([top / size[0], left / size[1], bottom / size[0], right / size[1]])
    return {
        "image": jnp.asarray(image),
        "boxes": jnp.asarray(boxes),
        "boxes_mask": jnp.ones((count, 1), jnp.float32),
        "segmentation": jnp.asarray(image[..., 0] * 3, jnp.int32),
        "instance_masks": jnp.asarray(image.transpose(0, 3, 1, 2)),
        "points": jnp.asarray((boxes[..., :2] + boxes[..., 2:]) / 2),
        "points_mask": jnp.ones((count, 1), jnp.float32),
    }


LABELLED = {
    **GEOMETRIC,
    "crop": partial(augment.crop, size=(30, 33), padding=4),
    "crop_resized": partial(augment.crop_resized, size=(56, 44), area=(0.3, 1.0)),
    "flip_left_right": augment.flip_left_right,
}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_move_with_the_pixels(name):
    out = jax.tree.map(np.asarray, jax.jit(LABELLED[name])(KEY, bright_rectangles()))
    height, width = out["image"].shape[1:3]
    compared = 0
    for row in range(16):
        bright = out["image"][row, :, :, 0] > 0.5
        for entry in (out["segmentation"][row] > 0, out["instance_masks"][row, 0] > 0.5):
            assert (bright != entry).sum() <= 0.08 * bright.sum() + 2 * (height + width) ** 0.5
        if not out["boxes_mask"][row, 0]:
            continue
        rows, columns = np.nonzero(bright.any(1))[0], np.nonzero(bright.any(0))[0]
        seen = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
        box = out["boxes"][row, 0] * np.array([height, width, height, width])
        assert np.abs(seen - box).max() <= (1.5 if name in ("rotate", "affine") else 1.0), (
            row,
            seen,
            box,
        )
        compared += 1
        touches_border = min(seen[0], seen[1], height - seen[2], width - seen[3]) == 0
        if out["points_mask"][row, 0] and not touches_border:
            centre = np.argwhere(bright).mean(0) + 0.5
            assert np.abs(centre - out["points"][row, 0] * np.array([height, width])).max() <= 0.5
    assert compared >= 8


def test_a_bright_pixel_moves_where_its_point_says():
    image = np.zeros((5, 21, 21, 1), np.float32)
    places = np.array([[10, 10], [6, 12], [14, 7], [9, 5], [12, 15]])
    image[np.arange(5), places[:, 0], places[:, 1]] = 1
    batch = {
        "image": jnp.asarray(image),
        "points": jnp.asarray((places[:, None] + 0.5) / 21, jnp.float32),
    }
    out = jax.jit(partial(augment.affine, degrees=180.0, factor=(0.9, 1.4), translation=0.05))(
        KEY, batch
    )
    assert np.asarray(out["points_mask"]).all()
    for row in range(5):
        brightness = np.asarray(out["image"][row, :, :, 0])
        centre = np.array(ndimage.center_of_mass(brightness)) + 0.5
        assert np.abs(centre - np.asarray(out["points"][row, 0]) * 21).max() < 0.5


def test_segmentation_follows_each_class_as_an_image_would():
    """Nearest sampling of classes is nearest sampling of each class's indicator."""
    batch = random_batch(size=(16, 16))
    one_hot = jax.nn.one_hot(batch["segmentation"], 4, dtype=jnp.float32)
    matrices = matrix.affine_matrices(
        size=(16, 16),
        degrees=jnp.linspace(-40, 40, 6, dtype=jnp.float32),
        factor=jnp.linspace(0.7, 1.5, 6, dtype=jnp.float32),
        shear=jnp.zeros((6,), jnp.float32),
        offset=(jnp.ones((6,), jnp.float32), jnp.zeros((6,), jnp.float32)),
    )
    classes = warp(batch, matrices, segmentation_fill=255)["segmentation"]
    indicators = warp({"image": one_hot}, matrices, order=0)["image"]
    outside = np.asarray(indicators.sum(-1)) == 0
    np.testing.assert_array_equal(np.asarray(classes)[outside], 255)
    np.testing.assert_array_equal(
        np.asarray(classes)[~outside], np.asarray(indicators.argmax(-1))[~outside]
    )
    assert outside.any()


# Flips


@pytest.mark.parametrize("name", ["flip_left_right", "flip_up_down"])
def test_flips_are_involutive(name):
    batch = random_batch()
    flip = jax.jit(partial(getattr(augment, name), rate=1.0, swap=(1, 0, 3, 2)))
    back = flip(KEY, flip(KEY, batch))
    for entry in batch:
        np.testing.assert_allclose(
            back[entry], batch[entry], atol=1e-6 if entry in ("boxes", "points") else 0
        )


def test_flip_swaps_left_and_right_points():
    batch = random_batch()
    batch["points_mask"] = batch["points_mask"].at[:, 0].set(0)
    out = augment.flip_left_right(KEY, batch, rate=1.0, swap=(1, 0, 2, 3))
    expected = np.asarray(batch["points"])[:, [1, 0, 2, 3]] * np.array([1, -1]) + np.array([0, 1])
    np.testing.assert_allclose(out["points"], expected, atol=1e-6)
    np.testing.assert_array_equal(out["points_mask"], np.tile([1, 0, 1, 1], (6, 1)))
    unflipped = augment.flip_left_right(KEY, batch, rate=0.0, swap=(1, 0, 2, 3))
    np.testing.assert_allclose(unflipped["points"], batch["points"], atol=1e-6)


def test_points_of_many_objects_move_alike():
    batch = random_batch()
    nested = {
        **batch,
        "points": batch["points"].reshape(6, 2, 2, 2),
        "points_mask": batch["points_mask"].reshape(6, 2, 2),
    }
    flat, deep = (COMPILED["rotate"](KEY, b) for b in (batch, nested))
    np.testing.assert_allclose(deep["points"].reshape(6, 4, 2), flat["points"], atol=1e-6)
    np.testing.assert_array_equal(deep["points_mask"].reshape(6, 4), flat["points_mask"])


def test_boxes_and_points_that_leave_lose_their_masks():
    image = jnp.zeros((1, 10, 10, 1), jnp.float32)
    boxes = jnp.asarray(
        [[[0.0, 0.0, 0.4, 0.5], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 0.1, 0.1]]], jnp.float32
    )
    points = jnp.asarray([[[0.35, 0.5], [0.05, 0.5]]], jnp.float32)
    batch = {
        "image": image,
        "boxes": boxes,
        "boxes_mask": jnp.asarray([[1, 0, 1]], jnp.float32),
        "points": points,
    }
    out = warp(batch, matrices_of(1, [[1, 0, -2], [0, 1, 0]]), min_visible=0.5)  # two pixels up
    np.testing.assert_allclose(
        out["boxes"], [[[0, 0, 0.2, 0.5], [0.3, 0, 0.8, 1], [0, 0, 0, 0.1]]], atol=1e-6
    )
    np.testing.assert_array_equal(out["boxes_mask"], [[1, 0, 0]])  # half left; did not exist; gone
    np.testing.assert_array_equal(out["points_mask"], [[1, 0]])
    assert (
        warp(batch, matrices_of(1, [[1, 0, -2], [0, 1, 0]]), min_visible=0.6)["boxes_mask"][0, 0]
        == 0
    )


# Crops


def test_crop_cuts_every_window_of_the_padded_image():
    image = np.random.default_rng(0).uniform(size=(1, 4, 4, 2)).astype(np.float32)
    batch = {"image": jnp.tile(jnp.asarray(image), (400, 1, 1, 1))}
    out = np.asarray(augment.crop(KEY, batch, size=(4, 4), padding=1, fill=0.5)["image"])
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), constant_values=0.5)
    windows = {padded[y : y + 4, x : x + 4].tobytes() for y in range(3) for x in range(3)}
    assert {row.tobytes() for row in out} == windows


def test_reflected_padding_shows_no_fill():
    batch = {"image": jnp.ones((32, 6, 6, 1), jnp.float32)}
    assert (
        float(augment.crop(KEY, batch, size=(6, 6), padding=3, mode="reflect")["image"].min()) == 1
    )
    assert float(augment.crop(KEY, batch, size=(6, 6), padding=3)["image"].min()) == 0


def test_crop_larger_than_the_image_is_refused():
    with pytest.raises(ConfigError, match=r"crop: a window of \(20, 20\).*\(12, 10\)"):
        augment.crop(KEY, random_batch(), size=(20, 20))


def test_crop_resized_covers_the_areas_asked_for():
    """The area of the window shows in the area of a box of known size; windows never leave the
    image.
    """
    count, height, width = 2000, 20, 30
    batch = {
        "image": jnp.ones((count, height, width, 1), jnp.float32),
        "points": jnp.tile(jnp.asarray([[0.0, 0.0], [1.0, 1.0]], jnp.float32)[None], (count, 1, 1)),
    }
    out = jax.jit(partial(augment.crop_resized, size=(8, 8), area=(0.1, 0.4)))(KEY, batch)
    spans = np.asarray(out["points"][:, 1] - out["points"][:, 0])
    areas, aspects = 1 / spans.prod(1), spans[:, 0] / spans[:, 1] * width / height
    assert areas.min() >= 0.1 - 1e-4
    assert areas.max() <= 0.4 + 1e-4
    assert areas.mean() == pytest.approx(0.25, abs=0.01)
    assert aspects.min() >= 3 / 4 - 1e-3
    assert aspects.max() <= 4 / 3 + 1e-3
    np.testing.assert_allclose(out["image"], 1, atol=1e-5)


def test_resize_equals_skimage_where_it_magnifies():
    transform = pytest.importorskip("skimage.transform")
    batch = random_batch(size=(8, 9))
    out = augment.resize(batch, size=(16, 27))
    theirs = transform.resize(np.asarray(batch["image"][0]), (16, 27), order=1, mode="edge")
    np.testing.assert_allclose(out["image"][0], theirs, atol=1e-5)
    np.testing.assert_array_equal(
        out["segmentation"], np.asarray(batch["segmentation"]).repeat(2, 1).repeat(3, 2)
    )
    np.testing.assert_array_equal(out["boxes"], batch["boxes"])


# Light and colour


@pytest.mark.parametrize(
    "name, enhancer",
    [
        ("jitter_brightness", "Brightness"),
        ("jitter_contrast", "Contrast"),
        ("jitter_saturation", "Color"),
    ],
)
def test_jitter_lies_on_pillows_line(name, enhancer):
    """For each image there is a factor in the range for which Pillow's enhancer, in 8 bits, gives
    the same picture.
    """
    from PIL import Image, ImageEnhance

    pixels = np.random.default_rng(0).integers(60, 190, (1, 8, 8, 3)).astype(np.uint8)
    batch = {"image": jnp.tile(jnp.asarray(pixels / 255, jnp.float32), (4, 1, 1, 1))}
    # no value is clipped
    out = np.asarray(ROW_BY_ROW[name].func(KEY, batch, amount=0.3)["image"]) * 255
    picture = Image.fromarray(pixels[0])
    for row in out:
        errors = [
            np.abs(np.asarray(getattr(ImageEnhance, enhancer)(picture).enhance(f)) - row).max()
            for f in np.linspace(0.7, 1.3, 241)
        ]
        assert min(errors) < 1.8


def test_lighting_moves_colours_along_the_eigenvectors():
    """The colour shifts' covariance is V diag((std * eigenvalue)^2) V^T (Krizhevsky et al. 2012,
    section 4.1).
    """
    batch = {"image": jnp.full((20000, 1, 1, 3), 0.5, jnp.float32)}
    shifts = np.asarray(augment.jitter_lighting(KEY, batch)["image"])[:, 0, 0] - 0.5
    vectors, values = (
        np.array(augment.IMAGENET_EIGENVECTORS),
        np.array(augment.IMAGENET_EIGENVALUES),
    )
    np.testing.assert_allclose(
        np.cov(shifts.T), vectors @ np.diag((0.1 * values) ** 2) @ vectors.T, atol=1e-5
    )
    # orthonormal, so no digit is mistyped
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-3)


def test_lighting_of_other_channels_is_refused():
    with pytest.raises(ConfigError, match="3 eigenvalues for images of 1 channels"):
        augment.jitter_lighting(KEY, random_batch(channels=1))


def test_noise_has_the_deviation_asked_for():
    image = augment.add_noise(KEY, {"image": jnp.full((4, 50, 50, 1), 0.5, jnp.float32)}, std=0.05)[
        "image"
    ]
    assert float(image.std()) == pytest.approx(0.05, rel=0.03)
    assert float(image.mean()) == pytest.approx(0.5, abs=0.003)


def test_standardize():
    batch = random_batch()
    out = augment.standardize(batch, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))["image"]
    np.testing.assert_allclose(
        out, (np.asarray(batch["image"]) - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7], atol=1e-6
    )
    np.testing.assert_allclose(
        augment.standardize(batch, mean=0.5, std=0.25)["image"],
        (np.asarray(batch["image"]) - 0.5) * 4,
        atol=1e-6,
    )
    with pytest.raises(ConfigError, match="mean has 2 numbers for images of 3 channels"):
        augment.standardize(batch, mean=(0.1, 0.2), std=1.0)


# Erasing and mixing


def erased_boxes(image):
    """Rows, columns and count of the pixels that are 0 in images of ones."""
    for row in np.asarray(image)[..., 0] == 0:
        yield row.any(1).sum(), row.any(0).sum(), row.sum()


def test_cutout_fills_one_square_cut_at_the_border():
    sizes = list(
        erased_boxes(
            augment.cutout(KEY, {"image": jnp.ones((300, 12, 12, 1), jnp.float32)}, size=5)["image"]
        )
    )
    assert all(
        area == tall * wide and 1 <= tall <= 5 and 1 <= wide <= 5 for tall, wide, area in sizes
    )
    assert max(area for *_, area in sizes) == 25


def test_erase_keeps_area_aspect_and_rate():
    batch = {"image": jnp.ones((2000, 40, 40, 1), jnp.float32)}
    sizes = np.array(
        list(
            erased_boxes(
                augment.erase(KEY, batch, rate=0.7, area=(0.1, 0.3), aspect=(0.5, 1.5), fill=0.0)[
                    "image"
                ]
            )
        )
    )
    erased = sizes[sizes[:, 2] > 0]
    assert len(erased) / 2000 == pytest.approx(0.7, abs=0.04)
    np.testing.assert_array_equal(erased[:, 2], erased[:, 0] * erased[:, 1])
    assert erased[:, 2].mean() / 1600 == pytest.approx(0.2, abs=0.01)
    assert (erased[:, 0] / erased[:, 1]).min() > 0.45
    assert (erased[:, 0] / erased[:, 1]).max() < 1.65


def test_erase_fills_with_noise():
    batch = {"image": jnp.full((50, 20, 20, 1), 2.0, jnp.float32)}
    image = np.asarray(augment.erase(KEY, batch, rate=1.0)["image"])
    noise = image[image != 2]
    assert (noise.min(), noise.mean(), noise.max()) == pytest.approx((0, 0.5, 1), abs=0.02)


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("name", MIXING)
def test_label_weight_is_the_share_of_the_pixels(name, rate):
    """Images that are constant, 0 or 1 by turns: their mean after mixing is the share of the image
    of ones.
    """
    count = 64
    label = jnp.arange(count, dtype=jnp.int32) % 2
    image = jnp.broadcast_to(label.astype(jnp.float32)[:, None, None, None], (count, 9, 11, 2))
    out = MIXING[name](KEY, {"image": image, "label": label}, rate=rate)
    weight = np.asarray(out["label_weight"])
    mean = np.asarray(out["image"]).mean((1, 2, 3))
    np.testing.assert_allclose(
        mean, weight * np.asarray(label) + (1 - weight) * np.asarray(out["label_b"]), atol=1e-6
    )
    np.testing.assert_array_equal(out["label_b"], 1 - label)
    assert weight.dtype == np.float32
    assert weight.std() > 0.1
    assert (weight == 1).mean() >= (1 - rate) / 2


def test_mixup_weights_follow_the_beta_distribution():
    batch = {
        "image": jnp.zeros((5000, 1, 1, 1), jnp.float32),
        "label": jnp.zeros((5000,), jnp.int32),
    }
    from scipy import stats

    weight = np.asarray(augment.mixup(KEY, batch, alpha=0.4)["label_weight"], np.float64)
    assert stats.kstest(weight, stats.beta(0.4, 0.4).cdf).pvalue > 0.001


@pytest.mark.parametrize("name", MIXING)
def test_mixing_twice_or_without_labels_is_refused(name):
    mixed = MIXING[name](KEY, random_batch())
    with pytest.raises(ConfigError, match="mixed already"):
        augment.mixup(KEY, mixed)
    with pytest.raises(ConfigError, match=r"no 'label'.*image"):
        MIXING[name](KEY, {"image": mixed["image"]})


def test_one_caption_is_drawn_evenly_among_those_that_exist():
    captions = jnp.asarray([[1, 4, 2, 0, 0], [1, 4, 5, 2, 0], [1, 4, 5, 6, 2]], jnp.int32)
    batch = {
        "captions": jnp.stack([captions, captions.at[1].set(0), jnp.zeros_like(captions)]),
        "image": jnp.zeros((3, 1)),
    }
    draw = jax.vmap(lambda key: augment.draw_caption(key, batch)["captions"])
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 600)))  # [600, 3, 1, L]
    assert drawn.shape == (600, 3, 1, 5)
    shares = np.array(
        [
            [(drawn[:, row, 0] == np.asarray(caption)).all(-1).mean() for caption in captions]
            for row in range(3)
        ]
    )
    np.testing.assert_allclose(shares, [[1 / 3] * 3, [1 / 2, 0, 1 / 2], [0, 0, 0]], atol=0.07)
    assert not drawn[:, 2].any()
