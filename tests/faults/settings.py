"""Runs of settings drawn at random, which no table of cases foresees: they are interrupted, go on,
and are evaluated, verified and trained again as replicas; all must agree.
"""

import dataclasses
import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import algebra, augment
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import shown
from jaxcnn.runs import loop, sweep
from jaxcnn.runs.code import load
from jaxcnn.runs.environment import prepare_process
from jaxcnn.runs.open import Run
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.replay import verify
from jaxcnn.runs.train import train
from jaxcnn.tasks.classification import Classification
from tests.faults import recipes
from tests.faults.children import Child, at_operation, command, die
from tests.faults.world import Tally, World
from tests.tiny import TinyNet, arrays, tiny

REFUSED = (2, 3, 6)  # exit codes: settings that make no sense together, no data, no memory
OPTIMIZERS = (
    partial(optax.sgd, learning_rate=0.01),
    partial(optax.sgd, learning_rate=0.01, momentum=0.9),
    partial(optimizers.sgd, learning_rate=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    partial(optimizers.muon, learning_rate=1e-3),
    partial(optax.contrib.schedule_free_adamw, learning_rate=1e-3),
    partial(optax.contrib.prodigy, learning_rate=1.0),
    partial(optax.adadelta, learning_rate=0.1),
    *(partial(f, learning_rate=1e-2) for f in (optax.adagrad, optax.lars, optax.sm3)),
    *(partial(f, learning_rate=1e-3) for f in (optax.adam, optax.adamw, optax.nadam, optax.radam)),
    *(partial(f, learning_rate=1e-3) for f in (optax.lamb, optax.adafactor, optax.adabelief)),
    *(partial(f, learning_rate=1e-3) for f in (optax.rmsprop, optax.novograd, optax.yogi)),
    partial(optax.lion, learning_rate=1e-4),
)
SCHEDULES = (
    partial(schedules.cosine, warmup=0.2),
    schedules.linear,
    schedules.exponential,
    schedules.one_cycle,
    schedules.triangular,
    schedules.polynomial,
    schedules.step,
)
AUGMENTATIONS = (
    partial(augment.shift, pixels=1),
    partial(augment.cutout, size=3),
    partial(augment.crop, size=(8, 8), padding=1),
    *(augment.flip_left_right, augment.mixup, augment.cutmix, augment.repeat, augment.erase),
    *(augment.jitter_brightness, augment.jitter_gamma, augment.add_noise, augment.rotate),
    augment.trivial_augment,
)
UNTRAINED = {"weights": None, "accumulate": 1}  # experiments: without what must be fetched


def draw(seed: int) -> Experiment:
    """The experiment of a number: mostly tests/tiny.py's, else one of the experiment files with a
    few of its examples.
    """
    choose = random.Random(seed)
    return _of_a_file(choose) if choose.random() < 0.25 else _tiny(choose)


def _data(choose: random.Random) -> Dataset:
    train = arrays(choose.choice((17, 24, 50)))
    held = arrays(choose.choice((3, 7, 21)), seed=1)
    if choose.random() < 0.25:
        for split in (train, held):
            size = len(split["label"])
            split["weight"] = np.random.default_rng(size).random(size).astype(np.float32) + 0.1
    base = Arrays(train=train, eval=held)
    return choose.choice(
        (
            *(lambda: base,) * 4,
            lambda: algebra.Take(base, choose.choice((9, 0.5))),
            lambda: algebra.HeldOut(base, fraction=0.25),
            lambda: algebra.Balanced(base),
            lambda: algebra.Concat(base, base),
            lambda: algebra.Mixed((base, base), weights=(1.0, 2.0)),
            lambda: algebra.Fold(base, 1, 3),
            lambda: algebra.Splits(train=base, eval=base),
        )
    )()


def _tiny(choose: random.Random) -> Experiment:
    any_of = choose.choice
    length: dict[str, Any] = {"steps": any_of((5, 8, 11))}
    if choose.random() < 0.3:
        length = {"steps": None, "epochs": any_of((1.0, 1.7, 2.0))}
    return tiny(
        data=_data(choose),
        model=TinyNet(dropout=any_of((0.0, 0.25))),
        task=Classification(num_classes=3, label_smoothing=any_of((0.0, 0.0, 0.1))),
        optimizer=any_of(OPTIMIZERS),
        schedule=any_of((*SCHEDULES, *(schedules.constant,) * 4)),
        augment=tuple(choose.sample(AUGMENTATIONS, any_of((0, 0, 1, 2, 3)))),
        batch_size=any_of((4, 6, 8, 12)),
        eval_batch_size=any_of((None, None, 4, 7)),
        seed=any_of((0, 1, 77, 2**32 - 1)),
        eval_every=any_of((0.3, 0.8, 1.0, 1.5, 9.0)),
        patience=any_of((None, None, None, 1, 2)),
        clip_norm=any_of((None, None, 0.5, 1e-3)),
        accumulate=any_of((1, 1, 2)),
        rates=any_of(((), (), (), (("Conv_0", 0),), (("Dense", 2.0),), (("bias", 0.5),))),
        ema=any_of((None, None, 0.9, 0.99)),
        compute_dtype=any_of(("float32", "float32", "float32", "bfloat16")),
        steps_per_dispatch=any_of((None, None, None, 1, 3)),
        remat=any_of((None, None, None, ("Conv_0",), ("BatchNorm_0",))),
        log_every=any_of((1, 1, 2, 5)),
        **length,
    )


def _of_a_file(choose: random.Random) -> Experiment:
    names = sorted(path.stem for path in (recipes.ROOT / "experiments").glob("*.py"))
    found = load(recipes.ROOT / "experiments" / f"{choose.choice(names)}.py")
    fields: dict[str, Any] = UNTRAINED | {
        "data": algebra.Take(algebra.Take(found.data, 18), 7, splits=("eval",)),
        "steps": choose.choice((3, 4, 5)),
        "batch_size": choose.choice((4, 6)),
        "eval_batch_size": choose.choice((None, 3, 5)),
        "eval_every": choose.choice((0.3, 0.6, 2.0)),
        "log_every": choose.choice((1, 2)),
        "patience": choose.choice((None, None, 1)),
    }
    if found.program is None:
        fields["ema"] = choose.choice((None, None, 0.9))
        fields["accumulate"] = choose.choice((1, 1, 2))
        fields["compute_dtype"] = choose.choice(("float32", "float32", "bfloat16"))
    return dataclasses.replace(found, **fields)


def settings(world: World, tally: Tally) -> None:
    """A run of settings drawn at random, killed or asked to stop at a file operation: it goes on to
    the bits of an unbroken one, whose evaluation, predictions, verification and replica agree.
    """
    seed, chance = world.random.randrange(10**6), world.random
    name = f"{recipes.DRAWN}{seed}"
    folder = world.place()
    tally.tried += 1
    first = Child(command("train", *world.arguments(name), "--run-dir", folder)).wait()
    if first.code in REFUSED:
        if tally.ended(first, REFUSED, name) and not folder.exists():
            tally.held += 1
        elif folder.exists():
            tally.untidy.append(f"{name}: refused, but {folder} is left: {first.last_words}")
        return
    golden, folder = world.golden(name), world.place()
    at = chance.randint(1, golden.operations)
    act = chance.choice((die, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    saving = chance.choice((0.0, 0.01, 30.0))

    def before() -> None:
        loop.SAVE_SECONDS = saving
        at_operation(at, folder, act)()

    ended = Child(world.go_on(name, folder), before=before).wait()
    what = f"{name}: interrupted at operation {at} of {golden.operations}"
    good = tally.ended(ended, (-9, 75, 143, 0), what)
    good &= world.finish(name, folder, tally, what)
    place, share = world.place(), chance.random()
    asking = Child(lambda: _agree(golden.folder, draw(seed), place, share), before=prepare_process)
    agreed = asking.wait()
    if agreed.code:
        tally.different.append(f"{name}: {agreed.out.strip() or agreed.last_words}")
    tally.held += good and not agreed.code


def _agree(folder: Path, e: Experiment, place: Path, chance: float) -> int:
    """Whether all that can be asked of a finished run says the same; prints what does not."""
    run = open_run(folder)
    if run.is_sweep:
        problems = [p for replica in run.trained() for p in _evaluates(replica, exact=False)]
    else:
        problems = [*_evaluates(run, exact=True), *_verifies(run), *_replica(run, e, place, chance)]
    print("\n".join(problems))
    return int(bool(problems))


def _evaluates(run: Run, *, exact: bool) -> list[str]:
    """Not `exact`: replicas that were evaluated together differ from one alone by rounding, of
    which the loss tells; counts of decisions near a tie may be others.
    """
    e, wanted, found = run.experiment, run.summary["eval"], run.evaluate("eval")
    if wanted is None:
        return []
    if not exact or run.decided(e).task != e.task:  # or with thresholds that training did not know
        wanted = {key: value for key, value in wanted.items() if key == "loss"}
    problems = [
        f"evaluate: {key} is {shown(found.get(key))}, recorded {shown(value)}"
        for key, value in wanted.items()
        if found.get(key) != value
        and (exact or not np.isclose(found[key], value, rtol=_tolerance(e), atol=1e-6))
    ]
    source = e.data.open("eval")
    batch = jax.tree.map(np.asarray, source.take(np.arange(len(source))))
    classifies = isinstance(e.task, Classification) and e.task.inputs == ("image",)
    if exact and classifies and "weight" not in batch:
        rows = run.predict(batch["image"])
        right = np.mean(np.array([row["label"] for row in rows]) == batch["label"])
        if abs(right - found["accuracy"]) > 1e-6:
            problems.append(f"predict: {right} are right, evaluate says {found['accuracy']}")
    return problems


def _verifies(run: Run) -> list[str]:
    found = verify(run)
    return [] if found["same"] else [f"verify: {found['differs']}"]


def _replica(run: Run, e: Experiment, place: Path, chance: float) -> list[str]:
    """By the loop the same bits; by other ways nearly the same loss at the first records."""
    way = "loop" if chance < 0.5 else "vmap" if chance < 0.8 else "2"
    points = sweep.grid(seed=(e.seed, 5))
    first = train(e, place, points=points, way=way, quiet=True).replicas[0]
    if way == "loop":
        same = first.summary["state_sha256"] == run.summary["state_sha256"]
        return [] if same else ["a replica by the loop has other bits"]
    ours, theirs = (
        {r["step"]: r["loss"] for r in history if r["kind"] == "train"}
        for history in (first.history, run.history)
    )
    step = min(ours.keys() & theirs.keys())  # an overdue save adds a record to one of them
    if np.isclose(ours[step], theirs[step], rtol=_tolerance(e)):
        return []
    return [f"step {step}: a replica by {way} has the loss {ours[step]}, the run {theirs[step]}"]


def _tolerance(e: Experiment) -> float:
    return 3e-2 if e.compute_dtype == "bfloat16" else 1e-3
