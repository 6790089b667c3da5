"""Motion clips: what moves, how, and that nothing but time tells a direction from its opposite."""

import dataclasses

import numpy as np
import pytest

from jaxcnn.data.made.clips import NUM_DIRECTIONS, MotionClips
from jaxcnn.data.made.digits import Digits
from jaxcnn.errors import ConfigError, DataError

CLIPS = MotionClips(digits=Digits(), num_train=160, num_eval=40)


def taken(data, split="train", indices=None):
    source = data.open(split)
    batch = source.take(np.arange(len(source)) if indices is None else np.asarray(indices))
    return np.asarray(batch["clip"]), np.asarray(batch["label"])


@pytest.fixture(scope="module")
def clips():
    return taken(CLIPS)


def test_spec_and_sizes(clips):
    clip, label = clips
    spec = CLIPS.spec()
    assert (
        (clip.shape[1:], clip.dtype)
        == (spec["clip"].shape, spec["clip"].dtype)
        == ((8, 32, 32, 1), np.uint8)
    )
    assert label.dtype == spec["label"].dtype
    assert set(label) == set(range(NUM_DIRECTIONS))
    assert (
        CLIPS.size("train"),
        CLIPS.size("eval"),
        CLIPS.size("test"),
        len(CLIPS.label_names),
    ) == (160, 40, 0, NUM_DIRECTIONS)


def test_the_ink_stays_and_moves_in_the_direction_of_the_label(clips):
    """The centroid of the ink moves along the label's angle, 1 to 2 pixels a frame, but for the
    rounding to whole pixels.
    """
    clip, label = clips[0][..., 0].astype(float), clips[1]
    ink = clip.sum((2, 3))
    np.testing.assert_array_equal(ink, ink[:, :1].repeat(8, 1))  # nothing leaves the picture
    y, x = np.mgrid[:32, :32]
    centroid = np.stack([(clip * axis).sum((2, 3)) for axis in (y, x)], -1) / ink[..., None]
    moved = (centroid[:, -1] - centroid[:, 0]) / 7
    angle = label * np.pi / 4
    direction = np.stack([np.sin(angle), np.cos(angle)], -1)
    along = (moved * direction).sum(-1)
    assert np.all((along > 1 - 0.25) & (along < 2 + 0.25))
    np.testing.assert_allclose(moved, along[:, None] * direction, atol=0.25)


def test_a_clip_is_a_function_of_seed_split_and_index(clips):
    clip, label = taken(CLIPS, indices=[[7, 3], [3, 150]])
    np.testing.assert_array_equal(clip, clips[0][[[7, 3], [3, 150]]])
    np.testing.assert_array_equal(label, clips[1][[[7, 3], [3, 150]]])
    other = taken(dataclasses.replace(CLIPS, seed=1))[0]
    assert np.mean([np.array_equal(a, b) for a, b in zip(other, clips[0], strict=True)]) < 0.1
    assert len({c.tobytes() for c in clips[0]}) == 160


def test_longer_sets_begin_with_the_shorter(clips):
    np.testing.assert_array_equal(
        taken(dataclasses.replace(CLIPS, num_train=500), indices=np.arange(160))[0], clips[0]
    )


def test_training_and_evaluation_share_no_digit():
    """The digits of either split are those of the same split of their own data set."""

    def crops(clip):  # the ink of the first frame, cut out
        frame = clip[0, ..., 0]
        return frame[np.ix_(frame.any(1), frame.any(0))].tobytes()

    train, held = ({crops(clip) for clip in taken(CLIPS, split)[0]} for split in ("train", "eval"))
    halves = {
        split: np.asarray(Digits().open(split).take(np.arange(Digits().size(split)))["image"])
        for split in ("train", "eval")
    }
    assert not {image.tobytes() for image in halves["train"]} & {
        image.tobytes() for image in halves["eval"]
    }
    assert len(train & held) <= 1  # at this size two writers' digits may look the same


def test_shuffling_permutes_the_frames_of_each_clip(clips):
    clip, label = taken(dataclasses.replace(CLIPS, shuffled=True))
    assert not np.array_equal(label, clips[1]) or not np.array_equal(clip, clips[0])
    y, x = np.mgrid[:32, :32]
    in_order = 0
    for frames in clip[..., 0].astype(float):
        centroid = (
            np.stack([(frames * axis).sum((1, 2)) for axis in (y, x)], -1)
            / frames.sum((1, 2))[:, None]
        )
        steps = np.linalg.norm(np.diff(centroid, axis=0), axis=1)
        in_order += steps.max() < 3.2
    assert in_order < 5


def test_a_clip_played_backwards_is_one_of_the_opposite_direction():
    """Same digit, speed and place: so shuffled frames cannot tell the two apart, and 1/2 is the
    best possible.
    """
    random = np.random.default_rng(0)
    for label in range(NUM_DIRECTIONS):
        for _ in range(20):
            speed, place = random.uniform(1, 2), random.uniform(size=2)
            forward, opposite = (
                CLIPS._path(k % NUM_DIRECTIONS, speed, place, (14, 14)) for k in (label, label + 4)
            )
            np.testing.assert_array_equal(forward, opposite[::-1])


def test_errors():
    with pytest.raises(DataError, match="no 'test' clips"):
        CLIPS.open("test")
    with pytest.raises(ConfigError, match="fewer frames"):
        dataclasses.replace(CLIPS, frames=16).open("eval")
