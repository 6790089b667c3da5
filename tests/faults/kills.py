"""kill -9: of training at random moments and at random file operations; of a loop that saves."""

import os
import struct
from pathlib import Path

import numpy as np

from jaxcnn.runs import loop
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.weights.files import read_sealed
from tests.faults.children import Child, Ended, at_operation, die
from tests.faults.world import Tally, World

SAVE_EVERY = (0.0, 0.01, 30.0)  # seconds: after each step, now and then, at evaluations alone


def training(world: World, tally: Tally) -> None:
    """One run that is killed one to five times; half of the times at a file operation."""
    name, random = world.any(), world.random
    golden, folder = world.golden(name), world.place()
    kills, seconds = 0, random.choice(SAVE_EVERY)
    what = f"{name}, saved every {seconds:g} s, killed"
    moments = [
        random.choice((0, random.randint(1, 2 * golden.operations)))
        for _ in range(random.randint(1, 5))
    ]
    while moments:
        at = moments.pop()
        ended = _killed(world, name, folder, at=at, saving=seconds)
        tally.count(ended.code)
        if ended.code == 0 and not kills:  # too late: another run, where the moment will come
            folder, moments = world.place(), [random.randint(1, golden.operations)]
            continue
        if ended.code == 0:
            break
        if ended.code != -9:
            tally.tried += kills
            tally.lost.append(f"{what}: cannot go on in {folder}: {ended.last_words}")
            return
        kills += 1
        what += f" at operation {at}" if at else f" after {ended.seconds:.2f} s"
    tally.tried += kills
    if world.finish(name, folder, tally, what):
        tally.held += kills


def _killed(world: World, name: str, folder: Path, *, at: int, saving: float) -> Ended:
    """Train, or go on, and be killed at a file operation, or at a random moment (0)."""
    hook = at_operation(at, folder, die) if at else lambda: None

    def before() -> None:
        loop.SAVE_SECONDS = saving
        hook()

    child = Child(world.go_on(name, folder), before=before)
    if not at:
        child.sleep(world.random.uniform(0, world.golden(name).seconds))
        child.send(9)
    return child.wait()


def content(step: int) -> dict[str, np.ndarray]:
    """What a checkpoint of a step holds."""
    generator = np.random.default_rng(step)
    return {f"x{i}": generator.random(800, np.float32) for i in range(8)} | {
        "step": np.full(3, step, np.int32)
    }


def saving(world: World, tally: Tally) -> None:
    """A loop that saves and prunes, killed and begun again 20 times in one folder."""
    folder = world.place()
    folder.mkdir()
    promised, what = 0, ""
    for _ in range(20):
        reading, writing = os.pipe()
        at = world.random.choice((0, world.random.randint(1, 40)))
        hook = at_operation(at, folder, die) if at else (lambda: None)

        def save(start=promised, writing=writing) -> int:
            checkpoints = Checkpoints(folder)
            checkpoints.clean()
            for step in range(start + 1, start + 10_000):
                checkpoints.save(content(step), step=step, best=step % 3 == 0)
                os.write(writing, struct.pack("<I", step))
            return 0

        child = Child(save, before=hook)
        os.close(writing)
        if not at:
            child.sleep(world.random.uniform(0.0, 0.08))
            child.send(9)
        ended = child.wait()
        tally.count(ended.code)
        with open(reading, "rb") as file:
            blob = file.read()
        promised = max([promised, *(step for (step,) in struct.iter_unpack("<I", blob))])
        what = f"killed after the save of step {promised} (operation {at})"
        tally.tried += 1
        newest, problem = _newest(folder)
        if ended.code != -9:
            tally.untidy.append(f"{what}: {ended.last_words}")
        elif problem or newest < promised:
            tally.lost.append(f"{what}: the newest is {newest} {problem}")
        else:
            tally.held += 1
    tally.runs += 1
    checker = Child(lambda: _restored(folder)).wait()
    if checker.code != 0:
        tally.lost.append(f"{what}: {checker.last_words}")


def _newest(folder: Path) -> tuple[int, str]:
    """(newest step, what is wrong): every file under a final name must be whole and right."""
    newest = 0
    for path in folder.glob("*.safetensors"):
        try:
            arrays, metadata = read_sealed(path)
        except Exception as error:
            return newest, str(error)
        step = int(metadata["step"])
        newest = max(newest, step)
        wanted = content(step)
        if any(arrays[n].tobytes() != wanted[n].tobytes() for n in wanted):
            return newest, f"{path}: holds something else"
        if step != int(path.stem.rpartition("-")[2]):
            return newest, f"{path}: is of step {step}"
    return newest, ""


def _restored(folder: Path) -> int:
    """In a child: what `restore` finds after `clean`, and that one save more leaves the right
    files.
    """
    checkpoints = Checkpoints(folder)
    checkpoints.clean()
    found = checkpoints.restore(content(0))
    step = 0 if found is None else found[1]
    if found is not None:
        wanted = content(step)
        assert all(np.array_equal(found[0][n], wanted[n]) for n in wanted)
    checkpoints.save(content(step + 1), step=step + 1, best=True)
    names = sorted(path.name for path in folder.iterdir())
    assert not any(name.startswith(".") for name in names), names
    kinds = [name[:4] for name in names]
    assert 1 <= kinds.count("best") <= 3, names
    assert 1 <= kinds.count("last") <= 2, names
    return 0
