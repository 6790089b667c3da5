"""Sets of keypoints: their names, the lines that join them, and which change places when the
picture is mirrored.

`swap` is the permutation that `jaxcnn.data.augment.flip_left_right(swap=…)` takes; `edges` is what
a drawing joins. Left and right are the person's own unless said otherwise.
"""

import itertools
from dataclasses import dataclass

from jaxcnn.errors import ConfigError


@dataclass(frozen=True)
class Skeleton:
    """J keypoints. `names` [J]; `edges`: pairs (i, j) of joined points; `swap` [J]: the point that
    point i becomes in a mirror.
    """

    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    swap: tuple[int, ...]

    def __post_init__(self):
        count = len(self.names)
        if sorted(self.swap) != list(range(count)) or any(
            self.swap[self.swap[i]] != i for i in range(count)
        ):
            raise ConfigError(
                f"Skeleton: swap is {self.swap}; it exchanges pairs of the {count} points, and "
                "leaves the others in place"
            )
        for edge in self.edges:
            if len(edge) != 2 or not all(0 <= i < count for i in edge) or edge[0] == edge[1]:
                raise ConfigError(
                    f"Skeleton: edge {edge} must join two different points of 0..{count - 1}"
                )


def mirrored_names(names: tuple[str, ...]) -> tuple[int, ...]:
    """The `swap` of points whose names say "left" and "right": each becomes the point of the other
    side, if it has one.
    """
    number = {name: i for i, name in enumerate(names)}
    exchange = {"left": "right", "right": "left"}
    other = ("_".join(exchange.get(word, word) for word in name.split("_")) for name in names)
    return tuple(number.get(name, i) for i, name in enumerate(other))


def chain(*points: int) -> tuple[tuple[int, int], ...]:
    """Edges from each point to the next."""
    return tuple(itertools.pairwise(points))


# The 17 body points of COCO and the 19 lines of its annotation files (Lin et al., "Microsoft COCO:
# common objects in context", 2014).
_COCO_NAMES = (
    *(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
    ),
    *(
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
)
COCO_POSE = Skeleton(
    names=_COCO_NAMES,
    edges=(
        *chain(15, 13, 11, 12, 14, 16),  # legs and hips
        *((5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),  # trunk and arms
        *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),  # head
    ),
    swap=mirrored_names(_COCO_NAMES),
)

# The 68 points of a face: jaw 17, brows 5 + 5, nose 9, eyes 6 + 6, mouth 20 (Sagonas et al., "300
# faces in-the-wild challenge", 2013, figure 1, whose points count from 1). The person's right side
# comes first.
FACE_68_PARTS = {
    "jaw": range(0, 17),
    "right_brow": range(17, 22),
    "left_brow": range(22, 27),
    "nose": range(27, 36),
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "mouth": range(48, 68),
}
FACE_68 = Skeleton(
    names=tuple(
        f"{part}_{i}" for part, points in FACE_68_PARTS.items() for i in range(len(points))
    ),
    edges=(
        *(
            edge
            for part in ("jaw", "right_brow", "left_brow")
            for edge in chain(*FACE_68_PARTS[part])
        ),
        *(
            *chain(27, 28, 29, 30, 33),
            *chain(31, 32, 33, 34, 35),
        ),  # the bridge to the tip and below; the nostrils
        *(
            edge
            for part in ("right_eye", "left_eye")
            for edge in chain(*FACE_68_PARTS[part], FACE_68_PARTS[part][0])
        ),
        *(*chain(*range(48, 60), 48), *chain(*range(60, 68), 60)),  # lips, outer and inner line
    ),
    swap=(
        *reversed(range(17)),
        *reversed(range(17, 27)),
        *(27, 28, 29, 30, 35, 34, 33, 32, 31),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
        *(64, 63, 62, 61, 60, 67, 66, 65),
    ),
)

# Five points of a face, as CelebA has them (Liu et al., "Deep learning face attributes in the
# wild", 2015), whose left is that of the picture.
_FACE_5_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
FACE_5 = Skeleton(
    names=_FACE_5_NAMES,
    edges=((0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4)),
    swap=mirrored_names(_FACE_5_NAMES),
)

# The 21 points of a hand: the wrist, and from the palm to the tip of each finger (Simon et al.,
# "Hand keypoint detection in single images using multiview bootstrapping", 2017). A mirrored left
# hand is a right hand with the same points: nothing changes places.
HAND_21 = Skeleton(
    names=(
        "wrist",
        *(
            f"{finger}_{i}"
            for finger in ("thumb", "index", "middle", "ring", "little")
            for i in range(1, 5)
        ),
    ),
    edges=tuple(
        edge for finger in range(5) for edge in chain(0, *range(1 + 4 * finger, 5 + 4 * finger))
    ),
    swap=tuple(range(21)),
)

# The points of `jaxcnn.data.made.scenes`: the ends of an item's ink in four directions, and its
# centroid.
EXTREMES = Skeleton(
    names=("topmost", "lowest", "leftmost", "rightmost", "centroid"),
    edges=((0, 4), (1, 4), (2, 4), (3, 4)),
    swap=(0, 1, 3, 2, 4),
)
