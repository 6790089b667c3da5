"""What is trained while faults are put in: small experiments with every kind of state and way."""

import dataclasses
import random
from functools import partial
from pathlib import Path

import numpy as np
import optax

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.memory import Arrays
from jaxcnn.runs.code import module_of
from tests.tiny import arrays, tiny

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24


def gan() -> Experiment:
    """The recipe on made digits, with a judge that was never trained."""

    def digits(size: int, seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        image = random.integers(0, 256, (size, 28, 28, 1)).astype(np.uint8)
        return {"image": image, "label": random.integers(0, 10, size).astype(np.int32)}

    module = module_of(ROOT / "experiments" / "mnist_gan.py")
    data = module.WithNoise(Arrays(train=digits(40, 0), eval=digits(21, 1)))
    few = {"batch_size": 8, "eval_batch_size": 16, "steps": 10, "log_every": 1}
    return dataclasses.replace(module.experiment, data=data, initialize=None, eval_every=1.0, **few)


def streamed(folder: Path) -> Experiment:
    """Images that are decoded batch by batch."""
    data = Folder(str(folder), image_size=(8, 8), channels=1, memory_mib=0)
    return tiny(data=data, steps=STEPS)


def make_images(folder: Path) -> None:
    """Those of `streamed`."""
    from PIL import Image

    for i, label in enumerate(np.random.default_rng(0).integers(0, 3, 40)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(arrays(1, seed=i)["image"][0, ..., 0]).save(folder / f"{label}/{i}.png")


def plain() -> Experiment:
    model = dataclasses.replace(tiny().model, dropout=0.0)
    return tiny(steps=STEPS, ema=None, augment=(), model=model)


SLOW_SGD = partial(optax.sgd, learning_rate=1e-9)  # nothing improves: patience runs out
MAKERS = {
    "plain": plain,
    "batchnorm, dropout, augmentation": lambda: tiny(steps=STEPS, ema=None),
    "EMA": lambda: tiny(steps=STEPS),
    "bfloat16": lambda: tiny(steps=STEPS, compute_dtype="bfloat16"),
    "accumulate": lambda: tiny(steps=STEPS, accumulate=2),
    "many steps a dispatch": lambda: tiny(steps=STEPS, steps_per_dispatch=4, log_every=5),
    "patience": lambda: tiny(steps=60, optimizer=SLOW_SGD, patience=2, eval_every=0.5, ema=None),
    "GAN": gan,
}
SWEEPS = {
    "sweep by vmap": ("--sweep", "seed=0..2", "--replicas-by", "vmap"),
    "sweep of two groups": ("--sweep", "seed=0,1", "batch_size=8,10", "--replicas-by", "loop"),
    "halving": ("--sweep", "seed=0..3", "--halving", "2", "--replicas-by", "vmap"),
}

NAMES = (*MAKERS, "streamed data", *SWEEPS)
AXES = ("batch_size=4,6", "log_every=1,2", "clip_norm=0.5,1.0", "eval_every=0.5,0.9", "ema=0.5,0.9")
DRAWN = "settings "  # and a number: those of tests/faults/settings.py


def each_step_recorded(name: str) -> bool:
    """Whether a save between two records of training can add none."""
    return name != "many steps a dispatch" and not name.startswith(DRAWN)


def sweep_of(seed: int) -> tuple[str, ...]:
    """The options of a number's sweep; () for a solo run, which two of three are."""
    choose = random.Random(f"sweep {seed}")
    if choose.random() < 0.67:
        return ()
    if choose.random() < 0.2:
        return ("--folds", choose.choice(("2", "3")))
    axes = choose.choice(
        (("seed=0..3",), ("seed=0,1", choose.choice(AXES)), (choose.choice(AXES),))
    )
    way = choose.choice((None, "vmap", "loop", "unrolled", "2"))
    by = () if way is None else ("--replicas-by", way)
    return ("--sweep", *axes, *by, *choose.choice(((), (), ("--halving", "2"))))


def write(name: str, folder: Path) -> list[str]:
    """The arguments of `train` for a recipe: an experiment file in `folder`, and options."""
    options = SWEEPS.get(name, ())
    path = folder / f"{''.join(c if c.isalnum() else '_' for c in name)}.py"
    if name == "streamed data":
        images = folder / "images"
        if not images.exists():
            make_images(images)
        what = f"from pathlib import Path\nfrom tests.faults.recipes import streamed\n\n\
experiment = streamed(Path({str(images)!r}))\n"
    elif name.startswith(DRAWN):
        number = name.removeprefix(DRAWN)
        what = f"from tests.faults.settings import draw\n\nexperiment = draw({number})\n"
        options = sweep_of(int(number))
    else:
        maker = "EMA" if name in SWEEPS else name
        what = f"from tests.faults.recipes import MAKERS\n\nexperiment = MAKERS[{maker!r}]()\n"
    path.write_text(what)
    return [str(path), "--quiet", *options]
