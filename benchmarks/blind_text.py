"""What scenes_ocr and scenes_text_detection score without looking at an image: a broken model must
not reach their figures.

    python benchmarks/blind_text.py

majority: every line is the likeliest digit of each place of the training texts, cut to their median
    length.
mean polygon: in every scene, for each of its lines' numbers in the training scenes, the mean
polygon (in the first place, second place, …), as many as the median scene has.
"""

from pathlib import Path

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402

from jaxcnn.metrics import matching  # noqa: E402
from jaxcnn.metrics.edit_distance import character_error_rate  # noqa: E402
from jaxcnn.ops import polygons  # noqa: E402
from jaxcnn.ops.alphabet import decode  # noqa: E402
from jaxcnn.runs.code import load  # noqa: E402

FOLDER = Path(__file__).parents[1] / "experiments"


def examples(name: str, split: str, *, count: int = 1_000) -> dict[str, np.ndarray]:
    """The first examples of a split of an experiment's data, as NumPy arrays."""
    return jax.device_get(
        load(FOLDER / f"{name}.py", overrides=[]).data.open(split).take(np.arange(count))
    )


def blind_reading() -> dict[str, float]:
    """exact and cer of one text for all lines."""
    train, held = examples("scenes_ocr", "train")["text"], examples("scenes_ocr", "eval")["text"]
    length = int(np.median((train > 0).sum(1)))
    guess = [int(np.bincount(column[column > 0]).argmax()) for column in train.T[:length]]
    truths = decode(held, alphabet="0123456789")
    read = decode([guess] * len(truths), alphabet="0123456789")
    return {
        "exact": float(np.mean([a == b for a, b in zip(read, truths, strict=True)])),
        "cer": character_error_rate(read, truths),
    }


def blind_finding() -> dict[str, float]:
    """hmean, precision and recall of the same polygons in all scenes."""
    train, held = (
        examples("scenes_text_detection", "train"),
        examples("scenes_text_detection", "eval"),
    )
    count = int(np.median(train["polygons_mask"].sum(1)))
    guess = np.stack(
        [train["polygons"][:, i][train["polygons_mask"][:, i] > 0].mean(0) for i in range(count)]
    )
    matched = true = 0
    for shapes, mask in zip(held["polygons"], held["polygons_mask"], strict=True):
        truths = shapes[mask > 0]
        matched += len(matching.match(polygons.pairwise_iou(guess, truths), threshold=0.5))
        true += len(truths)
    return matching.harmonic_mean(matched, count * len(held["polygons"]), true)


if __name__ == "__main__":
    for name, scores in (
        ("reading, majority", blind_reading()),
        ("finding, mean polygon", blind_finding()),
    ):
        print(f"{name:24}", "  ".join(f"{key} {value:.4f}" for key, value in scores.items()))
