"""What scenes_captioning scores without looking: a broken model must not reach its figures.

    python benchmarks/captioning_baselines.py [RUN]

The most frequent caption of the training scenes, said of every evaluation scene; and what RUN's
model (each replica of a sweep), trained on true captions, says of images, scored by the captions of
other scenes.
"""

import sys
from pathlib import Path

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402

from jaxcnn.core.override import get_at, override_all  # noqa: E402
from jaxcnn.ops.decoding import to_words  # noqa: E402
from jaxcnn.runs.code import load  # noqa: E402
from jaxcnn.runs.evaluation import evaluate_split  # noqa: E402
from jaxcnn.runs.open import Run  # noqa: E402
from jaxcnn.tasks.captioning import majority_caption, score_captions  # noqa: E402

FOLDER = Path(__file__).parents[1] / "experiments"


def show(name: str, scores: dict) -> None:
    """Print the scores on one line."""
    print(
        f"{name}: "
        + "  ".join(f"{key} {scores[key]:.4f}" for key in ("exact", "bleu4", "cider", "rouge_l"))
    )


def score_majority(*, num_train: int = 30_000) -> None:
    """Print the scores of the most frequent training caption."""
    data = load(FOLDER / "scenes_captioning.py", overrides=[]).data
    train, held = (
        jax.device_get(data.open(s).take(np.arange(n)))["captions"]
        for s, n in (("train", num_train), ("eval", get_at(data, "num_eval")))
    )
    said = majority_caption(train)
    references = [[to_words(row) for row in rows] for rows in held]
    show(
        " ".join(data.label_names[int(word[1:-1])] for word in said),
        score_captions([said] * len(held), references),
    )


def score_shuffled(folder: str) -> None:
    """Print the scores of a trained model (of each replica of a sweep) where the images belong to
    other scenes.
    """
    for i, run in enumerate(Run(folder).replicas):
        e = override_all(run.experiment, ["data.shuffled=true"])
        show(f"replica {i}, captions of other scenes", evaluate_split(e, run.state, "eval"))


if __name__ == "__main__":
    score_majority()
    if len(sys.argv) > 1:
        score_shuffled(sys.argv[1])
