"""Keypoint tables: what must hold of any, the counts and names of their sources, and that mirroring
a picture uses them rightly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data import augment, skeletons
from jaxcnn.data.made import scenes
from jaxcnn.data.skeletons import Skeleton
from jaxcnn.errors import ConfigError
from tests.torchvision_peer import import_torchvision

TABLES = {name: value for name, value in vars(skeletons).items() if isinstance(value, Skeleton)}
every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


@every_table
def test_tables_are_consistent(table):
    count = len(table.names)
    assert len(set(table.names)) == count
    assert [table.swap[i] for i in table.swap] == list(range(count)), (
        "swapping twice changes nothing"
    )
    assert all(0 <= i < count and 0 <= j < count and i != j for i, j in table.edges)
    edges = {frozenset(edge) for edge in table.edges}
    assert len(edges) == len(table.edges), "no line is drawn twice"
    assert {frozenset(table.swap[i] for i in edge) for edge in edges} == edges, (
        "the mirrored figure has the same lines"
    )
    joined = {0}
    for _ in range(count):
        joined |= {i for edge in edges if edge & joined for i in edge}
    if table is not skeletons.FACE_68:
        assert joined == set(range(count)), "every point can be reached"
    assert {i for edge in edges for i in edge} == set(range(count))


@every_table
def test_left_and_right_change_places_and_nothing_else_does(table):
    for name, other in zip(table.names, (table.names[i] for i in table.swap), strict=True):
        words = name.split("_")
        if "left" in words or "right" in words:
            assert ("left" in words, "right" in words) == (
                "right" in other.split("_"),
                "left" in other.split("_"),
            )
            assert {*words} - {"left", "right"} - {*map(str, range(17))} == {*other.split("_")} - {
                "left",
                "right",
            } - {*map(str, range(17))}


@every_table
def test_mirroring_a_picture_twice_gives_it_back_and_once_moves_left_to_right(table):
    count = len(table.names)
    points = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, (2, count, 2)), jnp.float32)
    batch = {
        "image": jnp.zeros((2, 4, 6, 1)),
        "points": points,
        "points_mask": jnp.ones((2, count)).at[0, 0].set(0),
    }
    once = augment.flip_left_right(jax.random.key(0), batch, rate=1.0, swap=table.swap)
    for i, j in enumerate(table.swap):
        np.testing.assert_allclose(
            once["points"][:, i], jnp.stack([points[:, j, 0], 1 - points[:, j, 1]], -1), atol=1e-6
        )
        np.testing.assert_array_equal(once["points_mask"][:, i], batch["points_mask"][:, j])
    twice = augment.flip_left_right(jax.random.key(1), once, rate=1.0, swap=table.swap)
    np.testing.assert_allclose(twice["points"], points, atol=1e-6)


def test_the_face_has_the_parts_of_the_300_w_challenge():
    sizes = {part: len(points) for part, points in skeletons.FACE_68_PARTS.items()}
    assert sizes == {
        "jaw": 17,
        "right_brow": 5,
        "left_brow": 5,
        "nose": 9,
        "right_eye": 6,
        "left_eye": 6,
        "mouth": 20,
    }
    assert [i for points in skeletons.FACE_68_PARTS.values() for i in points] == list(range(68))
    # Points on the middle line, counted from 1 as the challenge does: chin, bridge and tip of the
    # nose, middles of the lips.
    assert [i + 1 for i, j in enumerate(skeletons.FACE_68.swap) if i == j] == [
        9,
        28,
        29,
        30,
        31,
        34,
        52,
        58,
        63,
        67,
    ]
    for part, points in skeletons.FACE_68_PARTS.items():
        other = part.replace("left", "?").replace("right", "left").replace("?", "right")
        assert {skeletons.FACE_68.swap[i] for i in points} == set(skeletons.FACE_68_PARTS[other]), (
            part
        )


def test_a_symmetric_face_mirrored_is_itself():
    """Ellipses for eyes and lips, drawn in the order of the challenge: from the person's right
    corner on over the upper edge.
    """

    def ellipse(y, x, count, radius):
        # from the left of the picture, clockwise
        angle = np.pi - 2 * np.pi * np.arange(count) / count
        return [(y - 0.5 * radius * np.sin(a), x + radius * np.cos(a)) for a in angle]

    t = np.linspace(-1, 1, 17)
    face = [(0.9 - 0.4 * s * s, 0.5 + 0.4 * s) for s in t]  # jaw
    # brows
    face += [(0.25, 0.5 + 0.3 * s) for s in (*np.linspace(-1, -0.2, 5), *np.linspace(0.2, 1, 5))]
    # nose
    face += [(y, 0.5) for y in (0.35, 0.4, 0.45, 0.5)] + [
        (0.55, 0.5 + 0.05 * s) for s in (-2, -1, 0, 1, 2)
    ]
    face += (
        ellipse(0.35, 0.35, 6, 0.06)
        + ellipse(0.35, 0.65, 6, 0.06)
        + ellipse(0.75, 0.5, 12, 0.15)
        + ellipse(0.75, 0.5, 8, 0.1)
    )
    points = jnp.asarray(face, jnp.float32)[None]
    batch = {"image": jnp.zeros((1, 8, 8, 1)), "points": points}
    mirrored = augment.flip_left_right(
        jax.random.key(0), batch, rate=1.0, swap=skeletons.FACE_68.swap
    )
    np.testing.assert_allclose(mirrored["points"], points, atol=1e-6)


def test_body_points_are_those_of_torchvision():
    import_torchvision()
    from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights

    assert (
        list(skeletons.COCO_POSE.names)
        == KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.meta["keypoint_names"]
    )
    assert len(skeletons.COCO_POSE.edges) == 19  # as many as in COCO's annotation files


def test_the_points_of_scenes_have_their_table():
    assert skeletons.EXTREMES.names == scenes.POINT_NAMES


@pytest.mark.parametrize(
    "edges, swap, says",
    [
        (((0, 3),), (0, 1, 2), "edge"),
        (((1, 1),), (0, 1, 2), "edge"),
        ((), (1, 2, 0), "swap"),
        ((), (0, 1), "swap"),
        ((), (0, 0, 1), "swap"),
    ],
)
def test_bad_tables_are_refused(edges, swap, says):
    with pytest.raises(ConfigError, match=says):
        Skeleton(("a", "b", "c"), edges, swap)
