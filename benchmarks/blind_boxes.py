"""What scenes_localization, scenes_detection and scenes_instances score without learning: a broken
model must not reach their figures.

    python benchmarks/blind_boxes.py

mean box: in every scene the mean of the training scenes' boxes; its class the most frequent one for
localization; for detection one box a class, its score the class's share; for instances the mean of
the training masks, cut out by their boxes, inside it.
bright pixels: the box around each connected group of at least 30 pixels brighter than 160 of 255,
    of the most frequent class; and the group
itself as its mask. That sees the image, but no digit: the photographs are dimmed, and the digits
are brighter.
"""

from pathlib import Path

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402

from jaxcnn.metrics import average_precision  # noqa: E402
from jaxcnn.ops import masks  # noqa: E402
from jaxcnn.ops.roi_align import roi_align  # noqa: E402
from jaxcnn.ops.roi_paste import roi_paste  # noqa: E402
from jaxcnn.runs.code import load  # noqa: E402

FOLDER = Path(__file__).parents[1] / "experiments"
BRIGHT, LEAST_PIXELS = 160, 30


def examples(name: str, split: str, *, count: int = 1_000) -> dict[str, np.ndarray]:
    """The first examples of a split of an experiment's data, as NumPy arrays."""
    return jax.device_get(
        load(FOLDER / f"{name}.py", overrides=[]).data.open(split).take(np.arange(count))
    )


def bright_groups(image: np.ndarray) -> np.ndarray:
    """The connected groups of bright pixels of an image [H, W], largest first: [G, H, W] bool."""
    from scipy import ndimage

    groups, count = ndimage.label(image >= BRIGHT, structure=np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    found = [groups == number for number in range(1, count + 1)]
    found = sorted(
        (group for group in found if group.sum() >= LEAST_PIXELS), key=np.sum, reverse=True
    )
    return np.array(found, bool).reshape(-1, *image.shape)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of corresponding boxes [R, 4]."""
    shared = np.prod(
        np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0), axis=1
    )
    return shared / (
        np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - shared
    )


def localize_blindly() -> None:
    """Print the scores of both for localization."""
    train, test = (examples("scenes_localization", split) for split in ("train", "eval"))
    frequent, truth = np.bincount(train["label"]).argmax(), test["boxes"][:, 0].astype(np.float64)
    size = np.array([*test["image"].shape[1:3]] * 2)
    groups = [bright_groups(image) for image in test["image"][..., 0]]
    bright = np.array(
        [masks.to_box(group[0]) / size if len(group) else [0.0, 0, 1, 1] for group in groups]
    )
    mean = np.broadcast_to(train["boxes"][:, 0].mean(axis=0), truth.shape)
    for name, box in (("mean box", mean), ("bright pixels", bright)):
        iou = overlap(box, truth)
        localized = np.mean((iou >= 0.5) & (test["label"] == frequent))
        print(
            f"localization, {name}: mean IoU {iou.mean():.4f}, localized {localized:.4f} "
            f"(whatever the class: {np.mean(iou >= 0.5):.4f})"
        )


def detect_blindly() -> None:
    """Print the scores of both for detection and instance segmentation, whose scenes are
    the same.
    """
    train, test = (examples("scenes_instances", split) for split in ("train", "eval"))
    exists, size = train["boxes_mask"] > 0, test["image"].shape[1:3]
    scale = np.array([*size, *size])
    share = np.bincount(train["box_labels"][exists], minlength=10) / exists.sum()
    box = train["boxes"][exists].mean(axis=0)
    cropped = roi_align(
        *jax.device_put(
            (np.moveaxis(train["instance_masks"], 1, -1) / np.float32(255), train["boxes"])
        ),
        size=(28, 28),
    )
    cropped = np.asarray(cropped)[
        np.arange(len(exists))[:, None],
        np.arange(exists.shape[1]),
        :,
        :,
        np.arange(exists.shape[1]),
    ]
    mask = np.asarray(roi_paste(cropped[exists].mean(axis=0), box, size=size)) >= 0.5
    mean = {
        "label": np.arange(10),
        "score": share,
        "box": np.tile(box * scale, (10, 1)),
        "mask": np.tile(mask, (10, 1, 1)),
    }
    truths, bright = [], []
    for row, image in enumerate(test["image"][..., 0]):
        real, groups = test["boxes_mask"][row] > 0, bright_groups(image)
        label, found = (
            np.full(len(groups), share.argmax()),
            np.array([masks.to_box(group) for group in groups]).reshape(-1, 4),
        )
        truths.append(
            {
                "label": test["box_labels"][row][real],
                "box": test["boxes"][row][real] * scale,
                "mask": test["instance_masks"][row][real] > 0,
            }
        )
        bright.append(
            {"label": label, "score": groups.sum(axis=(1, 2)), "box": found, "mask": groups}
        )
    for name, guesses in (("mean box", [mean] * len(truths)), ("bright pixels", bright)):
        for kinds in (False, True):
            given, said = (
                (truths, guesses)
                if kinds
                else ([without_classes(o) for o in objects] for objects in (truths, guesses))
            )
            boxes, pixels = (
                average_precision.coco_boxes(given, said),
                average_precision.coco_masks(given, said),
            )
            whose = "" if kinds else ", whatever the class"
            print(
                f"detection, {name}{whose}: AP50 {boxes['AP50']:.4f}, AP75 {boxes['AP75']:.4f}; "
                f"mask AP50 {pixels['AP50']:.4f}"
            )


def without_classes(objects: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same objects, all of one class."""
    return objects | {"label": np.zeros_like(objects["label"])}


if __name__ == "__main__":
    localize_blindly()
    detect_blindly()
