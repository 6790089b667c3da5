"""What a run lacks: disk, the right to write, a reader of its output, memory, a folder of its own;
and folders with odd names.
"""

import contextlib
import os
import resource
import shutil
import time
from pathlib import Path

from tests.faults.children import Child, at_operation, command
from tests.faults.world import Tally, World

RESOURCES = 6
MIB = 2**20
SMALL = ("plain", "EMA", "patience", "sweep by vmap")  # whose checkpoints 4 MB hold


# ---- disk ----------------------------------------------------------------------------------------


def disk(world: World, tally: Tally) -> None:
    """On a file system of 4 MB, filled by another file at a file operation of a run (at each of
    them, given time); room is made again, and the run goes on.
    """
    if world.disk is None:
        return _without_mount(tally)
    name = world.any(SMALL)
    golden = world.golden(name)
    _empty(world.disk)
    folder, filler = world.disk / "run", world.disk / "filler"
    at = world.every(f"disk, {name}", golden.operations)
    left = world.random.choice((0, 1, 8, 64))
    hook = at_operation(at, folder, lambda: _fill(filler, left))
    what = f"{name}: full but for {left} KiB at operation {at} of {golden.operations}"
    ended = Child(world.go_on(name, folder), before=hook).wait()
    tally.tried += 1
    good = tally.ended(ended, (0, RESOURCES), what)
    if ended.code == RESOURCES and "free disk space" not in ended.err:
        tally.untidy.append(f"{what}: names no remedy: {ended.last_words}")
        good = False
    filler.unlink(missing_ok=True)
    if world.finish(name, folder, tally, what) and good:
        tally.held += 1


def _fill(filler: Path, left: int) -> None:
    """Take what is free, but for so many KiB."""
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        free = os.statvfs(filler.parent)
        blocks = free.f_bavail * free.f_frsize // 1024 - left
        assert blocks <= 4096, "not the small file system"
        file.write(bytes(1024 * max(0, blocks)))
        while left == 0:
            file.write(bytes(512))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _without_mount(tally: Tally) -> None:
    tally.count("mounting is not allowed here")
    tally.seconds += 1e9  # nothing to be done: the time goes to the others


def file_size(world: World, tally: Tally) -> None:
    """A limit on the size of any file the run writes: at it a write fails as on a full disk."""
    name = world.any()
    golden, folder = world.golden(name), world.place()
    sizes = [p.stat().st_size for p in golden.folder.rglob("*") if p.is_file()]
    limit = int(max(sizes) * world.random.random() ** 3)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    what = f"{name}: no file over {limit} bytes"
    ended = Child(world.go_on(name, folder), before=limited).wait()
    tally.tried += 1
    good = tally.ended(ended, (0, RESOURCES), what)
    if world.finish(name, folder, tally, what) and good:
        tally.held += 1


def read_only(world: World, tally: Tally) -> None:
    """A read-only file system: beginning and going on are refused at once; a run there can be
    evaluated.
    """
    if world.disk is None:
        return _without_mount(tally)
    golden = world.golden("plain")
    _empty(world.disk)
    shutil.copytree(golden.folder, world.disk / "run")
    lines = {
        "begin": ("train", *world.arguments("plain"), "--run-dir", world.disk / "new"),
        "go on": ("train", "--resume", world.disk / "run", "--quiet"),
        "export": ("export", world.disk / "run", "--output", world.disk / "model"),
        "evaluate": ("evaluate", world.disk / "run"),
    }
    world.remount("ro")
    try:
        for what, line in lines.items():
            ended = Child(command(*line)).wait()
            tally.tried += 1
            allowed = (0,) if what == "evaluate" else (RESOURCES,)
            tally.latency = max(tally.latency, ended.seconds)
            tally.held += tally.ended(ended, allowed, f"{what} on a read-only file system")
    finally:
        world.remount("rw")


# ---- output --------------------------------------------------------------------------------------


def output(world: World, tally: Tally) -> None:
    """Standard streams that are full, closed, or a pipe whose reader went away: training goes on,
    and only what it was to print is lost.
    """
    name = world.any(("plain", "patience", "halving"))
    world.golden(name)
    loud = [a for a in world.arguments(name) if a != "--quiet"]
    for kind in ("full", "closed", "gone"):
        for numbers in ((1,), (2,), (1, 2), (0, 1, 2)):
            folder = world.place()
            call = command("train", *loud, "--run-dir", folder)
            ended = Child(call, streams=lambda k=kind, n=numbers: _spoil(k, n)).wait()
            what = f"{name}: streams {numbers} {kind}"
            tally.tried += 1
            allowed = (0, RESOURCES) if 1 in numbers and kind == "full" else (0,)
            tally.count(ended.code)
            good = ended.code in allowed and "Traceback" not in ended.err
            if not good:
                tally.untidy.append(f"{what}: {ended.last_words}")
            if world.compare(name, folder, tally, what) and good:
                tally.held += 1
            tally.runs += 1


def _spoil(kind: str, numbers: tuple[int, ...]) -> None:
    for number in numbers:
        if kind == "closed":
            os.close(number)
            continue
        if kind == "full":
            target = os.open("/dev/full", os.O_RDWR)
        else:
            reading, target = os.pipe()
            os.close(reading)
        os.dup2(target, number)
        os.close(target)


# ---- memory --------------------------------------------------------------------------------------


def memory(world: World, tally: Tally) -> None:
    """A limit of the address space, for a small net, and for wide ones, some of which need more."""
    name, folder = "plain", world.place()
    world.golden(name)
    more = world.random.randint(1, 1500)
    wide = world.random.choice((0, int(10 ** world.random.uniform(4, 6.3))))

    def limited() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    line = ["train", *world.arguments(name), "--run-dir", folder]
    ended = Child(
        command(*line, *[f"model.width={wide}"] * bool(wide), "steps=24"), before=limited
    ).wait()
    what = f"a net of width {wide or 'as it is'} with {more} MiB"
    tally.tried += 1
    good = tally.ended(ended, (0, RESOURCES), what)
    remedies = ("choose a smaller", "free memory")
    if ended.code == RESOURCES and not any(text in ended.err for text in remedies):
        tally.untidy.append(f"{what}: names no remedy: {ended.last_words}")
        good = False
    if not wide:
        good = world.finish(name, folder, tally, what) and good
    tally.held += good
    shutil.rmtree(folder, ignore_errors=True)


# ---- folders -------------------------------------------------------------------------------------


def two_starts(world: World, tally: Tally) -> None:
    """Two experiments begun in one new folder at a random distance: one trains, the other is
    refused, and the run is the one's alone.
    """
    names = world.random.sample(("plain", "EMA", "patience"), 2)
    seconds = max(world.golden(name).seconds for name in names)
    folder, apart = world.place(), world.random.choice((0.0, world.random.uniform(0, seconds)))
    children = []
    for name in names:
        line = command("train", *world.arguments(name), "--run-dir", folder)
        children.append(Child(line))
        time.sleep(apart if len(children) == 1 else 0)
    ended = [child.wait() for child in children]
    what = f"{names[0]} and, {apart:.2f} s later, {names[1]}"
    tally.tried += 1
    won = [name for name, end in zip(names, ended, strict=True) if end.code == 0]
    declared = [tally.ended(end, (0, 2, 7), what) for end in ended]
    if len(won) != 1:
        tally.lost.append(f"{what}: {[end.last_words for end in ended]}")
        return
    if world.finish(won[0], folder, tally, what) and all(declared):
        tally.held += 1


def odd_paths(world: World, tally: Tally) -> None:
    """A run in a folder with an odd name, killed and resumed."""
    odd = (
        "a b",
        "süß 数字",
        "new\nline",
        "x" * 200,
        "-dash",
        "quote'\"$(x)`",
        "percent%s{0}",
        "*?[",
    )
    name, golden = "plain", world.golden("plain")
    place = world.place()
    place.mkdir()
    folder = place / world.random.choice(odd)
    hook = at_operation(
        world.random.randint(golden.operations // 2, golden.operations), folder, os.abort
    )
    Child(world.go_on(name, folder), before=hook).wait()
    tally.tried += 1
    if world.finish(name, folder, tally, f"in {folder.name!r}"):
        tally.held += 1
