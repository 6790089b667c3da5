"""Which learning rate? One short run whose rate rises by the same factor each step, and the loss
over the rate: L. N. Smith, "Cyclical learning rates for training neural networks", 2017, section
3.3, here with an exponential instead of a linear rise.

    python launch.py train experiments/digits_lr_finder.py --sweep seed=0..2
    python experiments/digits_lr_finder.py mnist_lenet5     # of another experiment, with a picture

The loss falls while the rate is useful, and rises where it is too large. Suggested is a tenth of
the rate at which the averaged loss is smallest: there it is already about to rise.

Expected: it suggests 0.00071 ± 0.00031 for LeNet-5 of 1998 on the digits (n = 3 seeds; 36 s for all
three, 2026-11-25, 2 cores shared with much other work). Hand-tuned is 0.002, and 0.02 fails
(experiments/digits_lenet5.py, docs/LOG.md).
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jaxcnn
from jaxcnn.core import optimizers
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.digits import Digits
from jaxcnn.errors import ConfigError, DivergedError
from jaxcnn.models.lenet import LeNet5
from jaxcnn.runs.rundir import new_folder
from jaxcnn.tasks.classification import Classification


def rising(progress, *, lowest: float):
    """From `lowest` to 1 by the same factor each step."""
    return lowest ** (1.0 - progress)


def range_test(
    e: Experiment, *, lowest: float = 1e-5, highest: float = 1.0, steps: int = 200
) -> Experiment:
    """`e` for `steps` updates, its learning rate rising from `lowest` to `highest`, each logged.

    Errors: ConfigError for an optimizer without a learning_rate to be set.
    """
    if not isinstance(e.optimizer, partial) or "learning_rate" not in e.optimizer.keywords:
        raise ConfigError(
            f"optimizer={e.optimizer!r}: the finder sets its learning_rate; write it as "
            "partial(…, learning_rate=…)"
        )
    return dataclasses.replace(
        e,
        optimizer=partial(e.optimizer, learning_rate=highest),
        schedule=partial(rising, lowest=lowest / highest),
        steps=steps,
        log_every=1,
        eval_every=1e9,  # at the end alone
    )


def averaged(history: Iterable[Mapping[str, Any]], *, window: int = 9) -> list[tuple[float, float]]:
    """(rate, mean loss of the `window` steps around it) of each step of a run's history that has
    them all; a loss that is not finite ends it.
    """
    steps = [r for r in history if r["kind"] == "train"]
    losses = [r["loss"] for r in steps]
    if None in losses:
        losses = losses[: losses.index(None)]
    half = window // 2
    means = [sum(losses[i - half : i + half + 1]) / window for i in range(half, len(losses) - half)]
    return [(steps[i + half]["learning_rate"], mean) for i, mean in enumerate(means)]


def suggest(history: Iterable[Mapping[str, Any]], *, window: int = 9) -> float:
    """A tenth of the rate at which the averaged loss is smallest."""
    return min(averaged(history, window=window), key=lambda point: point[1])[0] / 10


def plot(history: Iterable[Mapping[str, Any]], path: Path) -> None:
    """The averaged loss over the rate, up to four times its smallest value, as a picture."""
    import matplotlib.pyplot as plt

    curve = averaged(history)
    least = min(loss for _, loss in curve)
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot(*zip(*curve, strict=True))
    axes.axvline(suggest(history), linestyle="--", color="grey")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 4 * least))
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


experiment = range_test(
    Experiment(
        model=LeNet5(),
        task=Classification(num_classes=10, rubbish_penalty=0.1),
        data=Digits(),
        optimizer=partial(optimizers.sgd, learning_rate=0.002, momentum=0.9),
        batch_size=64,
    )
)

if __name__ == "__main__":
    asked = range_test(jaxcnn.load(sys.argv[1])) if sys.argv[1:] else experiment
    folder = new_folder("lr_finder")
    with contextlib.suppress(DivergedError):  # the curve up to there is what was asked for
        jaxcnn.train(asked, folder)
    run = jaxcnn.open(folder)
    plot(run.history, folder / "rates.png")
    print(f"learning rate {suggest(run.history):.2g}; {folder / 'rates.png'}")
