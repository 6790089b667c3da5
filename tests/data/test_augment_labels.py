"""What moves along with an image: second pictures, maps, polygons; perspective and elastic; and
pictures of several pictures, against brute force.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxcnn.data import augment, geometry, matrix
from jaxcnn.errors import ConfigError
from jaxcnn.ops import polygons

KEY = jax.random.key(11)


def shifted(down, right, **options):
    """`warp` by whole pixels, down and right."""
    matrix = jnp.asarray([[[1, 0, down], [0, 1, right]]], jnp.float32)
    return lambda batch: geometry.warp(
        batch, jnp.tile(matrix, (len(batch["image"]), 1, 1)), **options
    )


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


# Second pictures and maps


@pytest.mark.parametrize(
    "function",
    [
        partial(augment.flip_left_right, rate=1.0),
        partial(augment.flip_up_down, rate=1.0),
        partial(augment.crop, size=(6, 4), padding=2),
        partial(augment.shift, pixels=3),
        partial(augment.crop_resized, size=(8, 8), area=(1.0, 1.0), aspect=(1.0, 1.0)),
    ],
    ids=lambda f: f.func.__name__,
)
def test_a_target_of_twice_the_size_moves_along(function):
    """The image is the mean of 2 x 2 pixels of its target, before and after."""
    target = noise(5, 16, 16, 3)

    def halved(x):
        return x.reshape(5, x.shape[1] // 2, 2, x.shape[2] // 2, 2, 3).mean((2, 4))

    batch = {"image": halved(target), "target": target, "left_image": halved(target)[..., 0]}
    out = jax.device_get(jax.jit(function)(KEY, batch))
    np.testing.assert_allclose(halved(out["target"]), out["image"], atol=1e-5)
    np.testing.assert_array_equal(out["left_image"], out["image"][..., 0])


def test_warp_moves_a_larger_picture_by_the_same_shares():
    target = noise(3, 20, 24, 1)
    matrices = jnp.asarray(np.array([[[0.9, 0.3, 1.0], [-0.2, 1.1, 0.5]]] * 3), jnp.float32)
    out = geometry.warp({"image": noise(3, 10, 12, 1), "target": target}, matrices)["target"]
    doubled = matrices * jnp.asarray([[[1, 1, 2], [1, 1, 2]]], jnp.float32)
    np.testing.assert_allclose(out, geometry.warp({"image": target}, doubled)["image"], atol=1e-5)


def test_sizes_that_do_not_fit_are_refused():
    batch = {"image": noise(1, 8, 8, 1), "target": noise(1, 12, 12, 1)}
    with pytest.raises(ConfigError, match="target is 12x12, the image 8x8: cut to 5x5"):
        augment.crop(KEY, batch, size=(5, 5))
    with pytest.raises(ConfigError, match=r"crop: target is 12x12.*not a whole number of times"):
        augment.crop(KEY, batch, size=(6, 6))
    batch = {"image": noise(1, 8, 8, 1), "segmentation": jnp.zeros((1, 4, 4), jnp.int32)}
    with pytest.raises(ConfigError, match=r"segmentation is 4x4, the image 8x8.*one size"):
        augment.shift(KEY, batch)


def test_a_value_map_is_unknown_where_it_comes_in():
    batch = {"image": noise(2, 6, 6, 1), "value_map": 1 + noise(2, 6, 6, 2)}
    out = shifted(2, 0)(batch)
    np.testing.assert_array_equal(out["value_map"][:, 2:], batch["value_map"][:, :4])
    np.testing.assert_array_equal(out["value_map_mask"][:, :2], 0)
    np.testing.assert_array_equal(out["value_map_mask"][:, 2:], 1)


def test_mixing_mixes_all_images():
    image = noise(4, 6, 6, 1)
    batch = {"image": image, "left_image": image[..., 0], "label": jnp.arange(4)}
    for mix in (augment.mixup, augment.cutmix):
        out = mix(KEY, batch)
        np.testing.assert_allclose(out["left_image"], out["image"][..., 0], atol=1e-6)
    with pytest.raises(ConfigError, match="one rectangle cannot be cut of both"):
        augment.cutmix(KEY, batch | {"target": noise(4, 12, 12, 1)})


# Polygons


def quadrilaterals(count, seed=0):
    """Convex ones [count, 4, 2], some of them partly or wholly outside of [0, 1]."""
    random = np.random.default_rng(seed)
    angle = np.sort(random.uniform(0, 2 * np.pi, (count, 4)), axis=1)
    around = np.stack([np.sin(angle), np.cos(angle)], -1) * random.uniform(0.1, 0.6, (count, 1, 1))
    return (random.uniform(-0.3, 1.3, (count, 1, 2)) + around).astype(np.float32)


def test_area_in_the_unit_square_equals_clipping():
    outlines = quadrilaterals(200)
    square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], np.float32)
    expected = [polygons.intersection_area(outline, square) for outline in outlines]
    ours = polygons.area_in_unit_square(jnp.asarray(outlines))
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    other_way = polygons.area_in_unit_square(jnp.asarray(outlines[:, ::-1]))
    np.testing.assert_allclose(other_way, expected, atol=1e-4)
    assert 0 < np.count_nonzero(np.array(expected) < 1e-9) < 200


def test_polygons_move_as_points_do():
    outlines = jnp.asarray(quadrilaterals(12).reshape(3, 4, 4, 2))
    batch = {"image": noise(3, 10, 14, 1), "polygons": outlines, "points": outlines}
    options = {
        "affine": {"degrees": 30.0},
        "crop_resized": {"size": (7, 9)},
        "perspective": {"rate": 1.0},
    }
    for name in ("affine", "perspective", "elastic", "flip_left_right", "crop_resized"):
        function = jax.jit(partial(getattr(augment, name), **options.get(name, {})))
        compiled = function.lower(KEY, batch).compile()
        out = compiled(KEY, batch)
        np.testing.assert_allclose(out["polygons"], out["points"], atol=1e-6)
        # a chain that XLA writes out anew within each of its links has 80,000, and takes 20 s
        assert compiled.as_text().count("\n") < 10_000, name
        if name != "flip_left_right":
            assert np.abs(np.asarray(out["polygons"] - outlines)).max() > 1e-3


def test_polygons_and_boxes_that_leave_are_ignored_then_gone():
    """Ten rows down out of an image of 20: three quarters, half and nothing of three are left."""
    tops = (0.1, 0.35, 0.75)  # of things 0.2 high
    boxes = np.array([[t, 0.2, t + 0.2, 0.6] for t in tops], np.float32)
    outlines = boxes[:, [[0, 1], [0, 3], [2, 3], [2, 1]]]
    batch = {
        "image": noise(1, 20, 20, 1),
        "boxes": jnp.asarray(boxes)[None],
        "polygons": jnp.asarray(outlines)[None],
        **{f"{n}_mask": jnp.ones((1, 3), jnp.float32) for n in ("boxes", "polygons")},
        **{f"{n}_ignored": jnp.zeros((1, 3), jnp.float32) for n in ("boxes", "polygons")},
        "boxes_crowd": jnp.ones((1, 3), jnp.float32),
    }
    out = shifted(11, 0, min_visible=0.6)(batch)  # bottoms at 0.85, 1.1, 1.5
    for name in ("boxes", "polygons"):
        assert out[f"{name}_mask"].tolist() == [[1, 0, 0]]
        assert out[f"{name}_ignored"].tolist() == [[0, 1, 0]]
    assert out["boxes_crowd"].tolist() == [[1, 1, 0]]
    np.testing.assert_allclose(out["polygons"][0, 1, :, 0], [0.9, 0.9, 1.1, 1.1], atol=1e-6)


# Perspective and elastic


def test_perspective_takes_corners_where_it_says():
    corners = np.array([[[1, 2], [0, 17], [11, 15], [9, 1]]], np.float32)  # clockwise (y, x)
    matrices = matrix.perspective_matrices(jnp.asarray(corners), size=(12, 18))
    own = np.array([[0, 0], [0, 18], [12, 18], [12, 0]], np.float64)
    for place, corner in zip(own, corners[0], strict=True):
        y, x, w = np.asarray(matrices[0], np.float64) @ [*place, 1]
        np.testing.assert_allclose((y / w, x / w), corner, atol=1e-4)
    still = augment.perspective(KEY, {"image": noise(2, 9, 8, 1)}, rate=0.0)["image"]
    np.testing.assert_array_equal(still, noise(2, 9, 8, 1))


@pytest.mark.parametrize(
    "name",
    ["perspective", pytest.param("elastic", marks=pytest.mark.slow), "shear", "multi_scale"],
)
def test_a_bright_spot_moves_where_its_labels_say(name):
    count, size = 12, (40, 44)
    image = np.zeros((count, *size, 1), np.float32)
    image[:, 10:17, 18:26] = 1
    batch = {
        "image": jnp.asarray(image),
        "segmentation": jnp.asarray(image[..., 0], jnp.int32),
        "boxes": jnp.tile(jnp.asarray([[10 / 40, 18 / 44, 17 / 40, 26 / 44]])[None], (count, 1, 1)),
        "points": jnp.tile(jnp.asarray([[13.5 / 40, 0.5]])[None], (count, 1, 1)),
    }
    options = {
        "perspective": {"rate": 1.0},
        "elastic": {"sigma": 9.0},  # nearly even over the spot
        "multi_scale": {"fill": 0.0, "factor": (0.6, 1.3)},
    }
    out = jax.jit(partial(getattr(augment, name), **options.get(name, {})))(KEY, batch)
    out, unit, moved = jax.tree.map(np.asarray, out), np.array(size), 0
    for row in range(count):
        bright = out["image"][row, :, :, 0] > 0.5
        if bright[[0, -1]].any() or bright[:, [0, -1]].any():
            continue
        assert (bright != (out["segmentation"][row] == 1)).sum() < 12
        ys, xs = np.nonzero(bright.any(1))[0], np.nonzero(bright.any(0))[0]
        seen = np.array([ys[0], xs[0], ys[-1] + 1, xs[-1] + 1])
        assert np.abs(seen - out["boxes"][row, 0] * np.tile(unit, 2)).max() < 1.6
        centre = np.array(ndimage.center_of_mass(out["image"][row, :, :, 0])) + 0.5
        assert np.abs(centre - out["points"][row, 0] * unit).max() < 0.8
        moved += np.abs(centre - (13.5, 22)).max() > 0.5
    assert moved >= 5


def test_elastic_displacements_have_the_strength_asked_for(monkeypatch):
    fields = []
    monkeypatch.setattr(geometry, "displace", lambda batch, field: fields.append(field) or batch)
    augment.elastic(
        KEY, {"image": jnp.zeros((12, 64, 64, 1), jnp.float32)}, strength=2.0, sigma=3.0
    )
    assert float(fields[0][:, 12:-12, 12:-12].std()) == pytest.approx(2.0, rel=0.1)


# Pictures of several


def objects(count=5, rows=3, size=(12, 16), seed=1):
    """Noise with random boxes of whole pixels; mask and number 1 + k of object k where it is."""
    random = np.random.default_rng(seed)
    top, left = random.integers(0, 9, (count, rows)), random.integers(0, 12, (count, rows))
    high, wide = random.integers(2, 4, (count, rows)), random.integers(2, 5, (count, rows))
    pixels = np.stack([top, left, top + high, left + wide], -1)
    masks = np.zeros((count, rows, *size), np.float32)
    for index in np.ndindex(count, rows):
        y0, x0, y1, x1 = pixels[index]
        masks[index][y0:y1, x0:x1] = 1
    numbers = 1 + np.arange(rows)[:, None, None]
    return {
        "image": noise(count, *size, 3),
        "boxes": jnp.asarray(pixels / np.array(size * 2), jnp.float32),
        "boxes_mask": jnp.ones((count, rows), jnp.float32),
        "box_labels": jnp.asarray(np.arange(count * rows).reshape(count, rows), jnp.int32),
        "instance_masks": jnp.asarray(masks),
        "segmentation": jnp.asarray((masks * numbers).max(1), jnp.int32),
        "mask": jnp.ones((count,), jnp.float32),
    }  # fmt: skip


def test_a_mosaic_of_whole_pictures_is_four_slices():
    batch = objects()
    mosaic = partial(augment.mosaic, factor=(1.0, 1.0), centre=(0.5, 0.5), min_visible=0.5)
    batch, out = jax.device_get((batch, jax.jit(mosaic)(KEY, batch)))
    for row in range(5):
        parts = [np.asarray(batch["image"][row - k]) for k in range(4)]
        upper = np.concatenate([parts[0][6:, 8:], parts[1][6:, :8]], 1)
        lower = np.concatenate([parts[2][:6, 8:], parts[3][:6, :8]], 1)
        np.testing.assert_allclose(out["image"][row], np.concatenate([upper, lower]), atol=1e-6)
        found = []  # (area left, label, box) of each object of the four
        for k, (down, right) in enumerate([(-6, -8), (-6, 8), (6, -8), (6, 8)]):
            quarter = np.array([6 * (k // 2), 8 * (k % 2)])
            for box, label in zip(
                batch["boxes"][row - k], batch["box_labels"][row - k], strict=True
            ):
                whole = np.asarray(box).reshape(2, 2) * (12, 16) + (down, right)
                cut = np.clip(whole, quarter, quarter + np.array([6, 8]))
                area, full = np.prod(cut[1] - cut[0]), np.prod(whole[1] - whole[0])
                if area >= 0.5 * full:
                    found.append((area, int(label), cut.ravel() / (12, 16, 12, 16)))
        found.sort(key=lambda o: -o[0])
        count = min(3, len(found))
        assert out["boxes_mask"][row].tolist() == [1] * count + [0] * (3 - count)
        assert int(out["boxes_dropped"][row]) == len(found) - count
        y0, x0, y1, x1 = np.asarray(out["boxes"][row, :count], np.float64).T
        largest = [area / 192 for area, *_ in found[:count]]
        np.testing.assert_allclose((y1 - y0) * (x1 - x0), largest, atol=1e-6)
        places = {(label, *box.round(4)) for _, label, box in found}
        for k in range(count):
            label, box = int(out["box_labels"][row, k]), np.asarray(out["boxes"][row, k], float)
            assert (label, *box.round(4)) in places
            y0, x0, y1, x1 = (box * (12, 16, 12, 16)).round().astype(int)
            mask = np.zeros((12, 16))
            mask[y0:y1, x0:x1] = 1
            np.testing.assert_array_equal(out["instance_masks"][row, k], mask)
    np.testing.assert_array_equal(out["mask"], batch["mask"])


def test_random_mosaics_keep_shapes_and_say_what_is_in_them():
    batch = objects(8, rows=12, size=(20, 20))
    batch["boxes_mask"] = batch["boxes_mask"].at[:, 3:].set(0)
    batch["boxes_ignored"] = jnp.zeros((8, 12), jnp.float32).at[:, 3].set(1)
    mosaic = jax.jit(partial(augment.mosaic, rate=0.7))
    out = mosaic(KEY, batch)
    for name, x in batch.items():
        assert (out[name].shape, out[name].dtype) == (x.shape, x.dtype), name
    same = [row for row in range(8) if np.array_equal(out["image"][row], batch["image"][row])]
    assert 0 < len(same) < 8
    for name in batch:
        np.testing.assert_array_equal(out[name][jnp.array(same)], batch[name][jnp.array(same)])
    assert set(np.unique(out["segmentation"])) > {255}  # what no picture fills is ignored
    assert int(out["boxes_dropped"].sum()) == 0  # 4 x 3 objects, 12 rows


def test_copy_paste_covers_what_lies_under_it():
    batch = objects(4)
    out = augment.copy_paste(KEY, batch, rate=1.0, min_visible=0.5)
    for row in range(4):
        mine, theirs = (np.asarray(batch["instance_masks"][r], np.float32) for r in (row, row - 1))
        pasted = theirs.any(0)
        expected = np.where(pasted[..., None], batch["image"][row - 1], batch["image"][row])
        np.testing.assert_array_equal(out["image"][row], expected)
        where = np.where(pasted, batch["segmentation"][row - 1], batch["segmentation"][row])
        np.testing.assert_array_equal(out["segmentation"][row], where)
        left = mine * ~pasted
        alive = left.sum((1, 2)) >= 0.5 * mine.sum((1, 2))
        labels = [*batch["box_labels"][row], *batch["box_labels"][row - 1]]
        there = [*alive, True, True, True]
        areas = {int(n): m for n, m, t in zip(labels, [*left, *theirs], there, strict=True) if t}
        exists = np.asarray(out["boxes_mask"][row]) > 0
        kept = np.asarray(out["box_labels"][row])[exists].tolist()
        assert set(kept) <= set(areas)
        assert int(out["boxes_dropped"][row]) == len(areas) - len(kept)
        for k, label in enumerate(kept):
            mask = areas[label]
            np.testing.assert_array_equal(out["instance_masks"][row, k], mask)
            ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            box = np.array([ys[0], xs[0], ys[-1] + 1, xs[-1] + 1]) / (12, 16, 12, 16)
            np.testing.assert_allclose(out["boxes"][row, k], box, atol=1e-6)


def test_copy_paste_of_nothing_changes_nothing():
    batch = objects()
    out = augment.copy_paste(KEY, batch, rate=0.0)
    order = np.argsort(-np.asarray(batch["instance_masks"].sum((2, 3))), axis=1, kind="stable")
    for name in ("boxes", "box_labels", "instance_masks"):
        expected = np.stack([x[o] for x, o in zip(batch[name], order, strict=True)])
        np.testing.assert_array_equal(out[name], expected)
    np.testing.assert_array_equal(out["image"], batch["image"])


def test_pictures_of_several_refuse_what_they_cannot_keep():
    batch = objects()
    for name in ("mosaic", "copy_paste"):
        with pytest.raises(ConfigError, match=f"{name}: the batch has label, polygons"):
            getattr(augment, name)(KEY, batch | {"polygons": None, "label": None})
    with pytest.raises(ConfigError, match="copy_paste: the batch has no 'boxes' with"):
        augment.copy_paste(KEY, {"image": batch["image"]})
