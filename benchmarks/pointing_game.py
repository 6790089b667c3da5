"""The pointing game on localization scenes: does the highest place of an explanation lie in the box
of the digit that it explains, and does it no longer where the weights are random?

    python benchmarks/pointing_game.py [--games grid] [--seeds 3] [--steps 600] [--folder FOLDER]

A small network learns which digits are in a picture, and is never told where they are. Played on
pictures that were not trained on, right or wrong, without tolerance:

grid: four digits of four classes, side by side, of one mean brightness and contrast each (M. Böhle,
    M. Fritz, B. Schiele, "Convolutional dynamic alignment networks for interpretable
    classifications", 2021, section 4). The class of each is asked for in turn, so that a map that
    knows no class is right exactly once in four, wherever it points: chance is 25 %.
one: the one digit of a scene; the predicted class is explained. Chance would be the box's share of
    the picture, but the digits are the brightest things there, which an explanation may find
    without the network.
two: two digits of a scene, of two classes; the class of one of them is explained. Pointing at
    digits, whichever, hits half of the time: what is more must come from what was learned.

Scenes are those of `experiments/scenes_localization.py`. Random: the networks as they are
initialized, several for each seed (J. Adebayo et al., "Sanity checks for saliency maps", 2018).

`--games grid --scenes 1000 --methods gradcam layercam gradient --random 3`, 2026-11-29, 2 cores of
an AMD EPYC that other work shared (3 min of CPU time); mean ± std over n = 3 trained networks of
1,000 questions each (mAP 99.7 % each) and n = 9 random ones of 400 questions each:

                    grid, trained   grid, random (chance: 25 %)
    Grad-CAM        99.8 ± 0.1 %    23.8 ± 2.3 %
    LayerCAM        99.8 ± 0.1 %    26.1 ± 2.8 %
    gradient        91.7 ± 0.5 %    24.9 ± 2.4 %

`--games one two --methods gradcam layercam gradient --random 3`, the same day and machine; n = 3
trained networks of 500 scenes each (accuracy 94.9, 94.4, 95.7 %) and n = 9 random ones of 100
scenes each (400 since then). The box is 11.3 % of the picture.

                    one digit                       two digits
                    trained         random          trained         random
    Grad-CAM        96.2 ± 0.6 %    77.5 ± 8.1 %    89.0 ± 0.7 %    36.2 ± 8.4 %
    LayerCAM        97.3 ± 0.8 %    88.4 ± 5.9 %    88.7 ± 1.5 %    53.1 ± 4.0 %
    gradient        92.6 ± 1.9 %    31.8 ± 11.4 %   52.9 ± 5.3 %    20.8 ± 4.6 %

With one digit the activation maps of random networks still find it: it is bright, and any filter
answers to it. They do not fall to the box's share; where brightness tells nothing, they fall to
chance.
"""

import argparse
import dataclasses
import functools
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import linen as nn  # noqa: E402

from jaxcnn.core import optimizers, schedules  # noqa: E402
from jaxcnn.core.experiment import Experiment  # noqa: E402
from jaxcnn.core.program import make_program  # noqa: E402
from jaxcnn.data.files.tfds import Tfds  # noqa: E402
from jaxcnn.data.made.scenes import Scenes  # noqa: E402
from jaxcnn.data.memory import Arrays  # noqa: E402
from jaxcnn.inspect import explained  # noqa: E402
from jaxcnn.layers.conv_norm import ConvNorm  # noqa: E402
from jaxcnn.metrics.pointing import pointing_hits  # noqa: E402
from jaxcnn.runs.open import Run  # noqa: E402
from jaxcnn.runs.question import OF_CLASSES  # noqa: E402
from jaxcnn.runs.train import train  # noqa: E402
from jaxcnn.tasks.classification import Classification  # noqa: E402
from jaxcnn.tasks.multi_label import MultiLabel  # noqa: E402

BATCH, FEW = 50, 400  # pictures at once, and for random networks


class SceneClassifier(nn.Module):
    """Convolutions down to stride 4 and the mean over all places: images [B, H, W, 1] in [0, 1] to
    logits [B, num_classes]. What a place says of the class stays at that place until the mean.
    """

    num_classes: int = 10
    widths: tuple[int, ...] = (16, 32, 48, 64, 64)
    strides: tuple[int, ...] = (2, 1, 2, 1, 1)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        x = image
        for i, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
            x = ConvNorm(width, strides=stride, name=f"conv{i + 1}")(x, train=train)
        return nn.Dense(self.num_classes, name="classes")(x.mean((1, 2)))


GRID = 2  # pictures along a side of the grid
MEAN, SPREAD = 60.0, 30.0  # of each picture in it, in bytes


SCENES = Scenes(
    items=Tfds("mnist", train="train", eval="test"),
    entries=("image", "label"),
    min_items=1,
    max_items=1,
)
experiment = Experiment(
    model=SceneClassifier(),
    task=Classification(num_classes=10),
    data=SCENES,
    optimizer=partial(optax.adamw, learning_rate=4e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    batch_size=32,
    steps=600,
    eval_every=100,
)


def scenes(count: int, items: int) -> dict[str, np.ndarray]:
    """Of the first scenes for evaluation with so many digits, all of different classes: image [N,
    H, W, 1] uint8, and of one of the digits label [N] and box [N, 4].
    """
    entries = ("image", "boxes", "boxes_mask", "box_labels")
    many = dataclasses.replace(SCENES, entries=entries, min_items=items, max_items=items)
    found = jax.device_get(many.open("eval").take(np.arange(min(1_000, 2 * count))))
    labels = np.sort(found["box_labels"], axis=1)
    good = found["boxes_mask"].all(1) & (np.diff(labels, axis=1) > 0).all(1)
    chosen = np.flatnonzero(good)[:count]
    rows = {"image": found["image"], "label": found["box_labels"][:, 0]}
    return {n: x[chosen] for n, x in {**rows, "box": found["boxes"][:, 0]}.items()}


@functools.cache
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """MNIST: (float32 [N, 28, 28] in bytes, each of mean MEAN and standard deviation SPREAD before
    it is cut to [0, 255]; labels [N]).
    """
    source = Tfds("mnist", train="train", eval="test").open(split)
    found = jax.device_get(dict(source.take(np.arange(len(source)))))
    image = found["image"][..., 0].astype(np.float32)
    mean, spread = image.mean((1, 2), keepdims=True), image.std((1, 2), keepdims=True)
    return np.clip((image - mean) / spread * SPREAD + MEAN, 0, 255), found["label"]


def grids(split: str, count: int, *, seed: int) -> dict[str, np.ndarray]:
    """Grids of GRID x GRID digits, all of different classes, each at a place drawn for it: image
    [N, 56, 56, 1] uint8, labels [N, 10] (1 for the classes there are), places [N, 4] (the class of
    each cell, row by row).
    """
    image, label = digits(split)
    random, cells = np.random.default_rng(seed), GRID * GRID
    rows = [np.flatnonzero(label == k) for k in range(10)]
    places = np.stack([random.permutation(10)[:cells] for _ in range(count)])
    chosen = [[rows[k][random.integers(len(rows[k]))] for k in grid] for grid in places]
    tiles = image[np.asarray(chosen)].reshape(count, GRID, GRID, 28, 28)
    whole = tiles.transpose(0, 1, 3, 2, 4).reshape(count, GRID * 28, GRID * 28, 1)
    labels = (places[:, :, None] == np.arange(10)).any(1).astype(np.float32)
    return {"image": np.round(whole).astype(np.uint8), "labels": labels, "places": places}


def asked(grid: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each grid once for each of its cells: image, the cell's class as label, and its box."""
    cells = GRID * GRID
    y, x = np.divmod(np.arange(cells), GRID)
    corners = np.stack([y, x, y + 1, x + 1], -1) / GRID
    return {
        "image": grid["image"].repeat(cells, 0),
        "label": grid["places"].reshape(-1).astype(np.int32),
        "box": np.tile(corners, (len(grid["image"]), 1)),
    }


def share_of_hits(
    e: Experiment, state: Any, rows: dict[str, np.ndarray], method: str, *, of_label: bool
) -> float:
    """The share of pictures whose highest place lies in the box; explained is the class of `label`,
    or the predicted one.
    """
    model, key = explained.network(e, state), jax.random.key(0)

    @jax.jit
    def maps(images: jax.Array, label: jax.Array) -> jax.Array:
        target = label if of_label else explained.predicted(e, model, images)
        return explained.MAPS[method](key, explained.target_score(e, model, target), images, None)

    hits = []
    for start in range(0, len(rows["label"]) // BATCH * BATCH, BATCH):
        part = {name: x[start : start + BATCH] for name, x in rows.items()}
        found = maps(jnp.asarray(part["image"], jnp.float32) / 255.0, jnp.asarray(part["label"]))
        hits.append(pointing_hits(np.asarray(found), part["box"]))
    return float(np.concatenate(hits).mean())


GAMES = {
    "one": lambda count: scenes(count, 1),
    "two": lambda count: scenes(count, 2),
    "grid": lambda count: asked(grids("eval", count // 4, seed=1)),
}


def trained(seed: int, steps: int, folder: Path, *, grid: bool = False) -> Run:
    """The network of a seed, for scenes or for grids, from `folder` where it was trained before."""
    e, place = dataclasses.replace(experiment, seed=seed, steps=steps), folder / f"seed{seed}"
    if grid:
        rows = {"train": grids("train", 20_000, seed=0), "eval": grids("eval", 1_000, seed=1)}
        kept = {split: {n: x[n] for n in ("image", "labels")} for split, x in rows.items()}
        e = dataclasses.replace(
            e, task=MultiLabel(num_classes=10), data=Arrays(kept["train"], kept["eval"])
        )
        place = folder / f"grid{seed}"
    if (place / "summary.json").exists():
        return Run(place, e)
    return train(e, place, quiet=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--random", type=int, default=5, help="random networks for each seed")
    parser.add_argument("--games", nargs="+", default=tuple(GAMES), choices=tuple(GAMES))
    parser.add_argument("--methods", nargs="+", default=OF_CLASSES, choices=OF_CLASSES)
    parser.add_argument("--folder", type=Path, help="where the networks are kept")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    hits: dict[tuple[str, str, str], list[float]] = {}
    for game in args.games:
        rows = GAMES[game](args.scenes)
        y0, x0, y1, x1 = rows["box"].T
        share = ((y1 - y0) * (x1 - x0)).mean()
        print(f"{game}: {len(rows['label'])} questions, box share {share:.3f}", flush=True)
        few = {name: x[:FEW] for name, x in rows.items()}
        for seed in range(args.seeds):
            run = trained(seed, args.steps, folder, grid=game == "grid")
            e, metric = run.experiment, run.experiment.task.metric
            print(f"seed {seed}: {metric} {run.summary['eval'][metric]:.3f}", flush=True)
            init = make_program(e, steps=1).init
            keys = [jax.random.fold_in(jax.random.key(seed), 1 + i) for i in range(args.random)]
            for method in args.methods:
                play = partial(share_of_hits, e, method=method, of_label=game != "one")
                learned = hits.setdefault((method, game, "trained"), [])
                blank = hits.setdefault((method, game, "random"), [])
                learned.append(play(run.state, rows))
                blank += [play(init(key), few) for key in keys]
                print(f"  {method}: {learned[-1]:.3f}, {np.mean(blank):.3f}", flush=True)
    for (method, game, which), shares in hits.items():
        spread = np.std(shares, ddof=1) if len(shares) > 1 else 0.0
        print(
            f"{method}, {game}, {which}: {100 * np.mean(shares):.1f} ± {100 * spread:.1f} % "
            f"(n = {len(shares)})"
        )


if __name__ == "__main__":
    main()
