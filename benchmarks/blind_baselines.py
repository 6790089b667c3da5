"""What scenes_segmentation and scenes_keypoints score without looking: a broken model must not
reach their figures.

    python benchmarks/blind_baselines.py

segmentation: every pixel background; and every pixel of at least a brightness (the best of a grid,
chosen on the training scenes) the most frequent digit, with the foreground's IoU where classes do
not count. keypoints: each point at its mean place in the training scenes; and at the middle of the
pixels that bright.
"""

from pathlib import Path

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402

from jaxcnn.core.override import get_at, replace_at  # noqa: E402
from jaxcnn.runs.code import load  # noqa: E402
from jaxcnn.runs.evaluation import merge  # noqa: E402

FOLDER = Path(__file__).parents[1] / "experiments"
THRESHOLDS = tuple(range(100, 240, 10))


def examples(experiment, split: str, *, count: int = 1_000) -> dict[str, np.ndarray]:
    """The first examples of a split, as NumPy arrays."""
    return jax.device_get(experiment.data.open(split).take(np.arange(count)))


def score(task, outputs: np.ndarray, batch: dict[str, np.ndarray]) -> dict:
    """The task's metrics of given outputs, a few rows at a time."""
    results = []
    for start in range(0, len(outputs), 250):
        part = {name: array[start : start + 250] for name, array in batch.items()} | {
            "mask": np.ones(250, np.float32)
        }
        given = outputs[start : start + 250]
        results.append(
            (250, jax.device_get((task.statistics(given, part), task.records(given, part))))
        )
    return merge(task, results)


def segment_blindly() -> None:
    """Print the scores of the two blind segmentations."""
    experiment = load(FOLDER / "scenes_segmentation.py")
    num_classes = get_at(experiment, "task.num_classes")
    task, (train, test) = (
        experiment.task,
        (examples(experiment, split) for split in ("train", "eval")),
    )

    def foreground_iou(batch, threshold):
        truth, called = batch["segmentation"] > 0, batch["image"][..., 0] >= threshold
        return (truth & called).sum() / (truth | called).sum()

    best = max(THRESHOLDS, key=lambda threshold: foreground_iou(train, threshold))
    frequent = np.bincount(train["segmentation"].ravel(), minlength=num_classes)[1:].argmax() + 1
    classes = np.eye(num_classes, dtype=np.float32)
    for name, truth in (
        ("all background", np.zeros_like(test["segmentation"])),
        (f"brightness >= {best}", np.where(test["image"][..., 0] >= best, frequent, 0)),
    ):
        metrics = score(task, 40 * classes[truth], test)
        print(
            f"segmentation, {name}: mIoU {metrics['mIoU']:.4f}, pixel accuracy "
            f"{metrics['pixel_accuracy']:.4f}"
        )
    print(
        f"segmentation, brightness >= {best}: IoU of the foreground, whatever its class, "
        f"{foreground_iou(test, best):.4f}"
    )


def point_blindly() -> None:
    """Print the scores of the two blind keypoint finders."""
    experiment = load(FOLDER / "scenes_keypoints.py", overrides=[])
    task = replace_at(experiment.task, "method", "direct")
    train, test = (examples(experiment, split) for split in ("train", "eval"))
    mean = np.broadcast_to(train["points"].mean(axis=0), test["points"].shape).astype(np.float32)
    size = np.array(test["image"].shape[1:3])
    bright = test["image"][..., 0] >= 160
    places = [np.argwhere(mask).mean(axis=0) + 0.5 if mask.any() else size / 2 for mask in bright]
    middle = np.broadcast_to((np.array(places) / size)[:, None], test["points"].shape).astype(
        np.float32
    )
    for name, guess in (("mean place", mean), ("middle of the bright pixels", middle)):
        metrics = score(task, guess, test)
        print(f"keypoints, {name}: PCK@0.1 {metrics['pck']:.4f}, NME {metrics['nme']:.4f}")


if __name__ == "__main__":
    segment_blindly()
    point_blindly()
