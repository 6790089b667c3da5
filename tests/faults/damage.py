"""Damage to files: of checkpoints, at random and with malice; checkpoints in the wrong place; the
compilation cache. Each unit runs in one child, which prints what it counted.
"""

import json
import math
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.children import Child
from tests.faults.world import Tally, World
from tests.seals import sealed_again

MUTATIONS = 200  # a unit
Report = dict[str, list[str]]


def _in_child(tally: Tally, work: Callable[[Report], int]) -> None:
    """Run `work` in a child and add what it found: the number tried, and sentences."""

    def call() -> int:
        report: Report = {"lost": [], "different": [], "untidy": []}
        count = work(report)
        print(json.dumps([count, report]))
        return 0

    ended = Child(call).wait()
    tally.runs += 1
    if ended.code != 0:
        tally.lost.append(ended.last_words)
        return
    count, report = json.loads(ended.out.splitlines()[-1])
    tally.tried += count
    tally.held += count - sum(map(len, report.values()))
    for kind, texts in report.items():
        getattr(tally, kind).extend(texts)


# ---- at random ---------------------------------------------------------------------------------


def changed(blob: bytes, generator: random.Random) -> tuple[str, bytes]:
    """(what was done, the bytes): a flipped bit, a cut, zeros, noise, an insertion, two regions
    swapped.
    """
    size = len(blob)
    # the header is a small part of the file, and half of the damage
    a = generator.randrange(generator.choice((min(size, 4096), size)))
    length = generator.choice((1, 8, generator.randint(1, 4096)))
    b = min(size, a + length)
    kind = generator.choice(("flip", "cut", "zero", "noise", "insert", "swap", "remove"))
    if kind == "flip":
        made = bytearray(blob)
        made[a] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        made = blob[:a]
    elif kind == "zero":
        made = blob[:a] + bytes(b - a) + blob[b:]
    elif kind == "noise":
        made = blob[:a] + generator.randbytes(b - a) + blob[b:]
    elif kind == "insert":
        made = blob[:a] + generator.randbytes(length) + blob[a:]
    elif kind == "remove":
        made = blob[:a] + blob[b:]
    else:
        c = generator.randrange(size)
        d = min(size, c + (b - a))
        one, two = sorted(((a, b), (c, d)))
        if one[1] > two[0]:
            return "nothing", blob
        first, second = blob[slice(*one)], blob[slice(*two)]
        made = blob[: one[0]] + second + blob[one[1] : two[0]] + first + blob[two[1] :]
    return f"{kind} at {a}", bytes(made)


def checkpoints(world: World, tally: Tally) -> None:
    """The newest checkpoint of a run is damaged at random: the one before it must be used."""
    golden, seed, folder = (
        world.golden(world.any(("EMA", "plain"))),
        world.random.randrange(2**32),
        world.place(),
    )

    def work(report: Report) -> int:
        place, count = _Place(golden.folder, folder), 0
        generator = random.Random(seed)
        while count < MUTATIONS:
            what, blob = changed(place.newest.blob, generator)
            if blob != place.newest.blob:
                count += 1
                place.check(what, {place.newest.name: blob}, place.before, report)
        return count

    _in_child(tally, work)


class _File:
    def __init__(self, path: Path):
        from jaxcnn.weights.files import read_sealed

        self.name, self.blob, self.step = path.name, path.read_bytes(), _step(path)
        self.arrays = read_sealed(path)[0]


def _step(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


class _Place:
    """The checkpoints of a finished run, in a folder where they can be damaged."""

    def __init__(self, run: Path, folder: Path):
        from jaxcnn.runs.open import open as open_run

        shutil.copytree(run, folder)
        self.run = json.loads((folder / "run.json").read_text())["id"]
        self.folder, self.template = folder / "checkpoints", open_run(folder).state
        for path in self.folder.glob("best-*"):
            path.unlink()  # of the two last ones the older is what is to be fallen back to
        self.files = [_File(path) for path in sorted(self.folder.glob("last-*"))]
        self.before, self.newest = self.files

    def check(
        self,
        what: str,
        contents: dict[str, bytes],
        wanted: _File | None,
        report: Report,
        *,
        forged: bool = False,
    ) -> None:
        """Write files over the good ones, restore, and compare with `wanted` (None: refused).
        `forged`: what is well made may be taken, since a seal is no signature.
        """
        from jaxcnn.errors import CheckpointError

        for path in self.folder.iterdir():
            path.unlink()
        for name, blob in {**{f.name: f.blob for f in self.files}, **contents}.items():
            (self.folder / name).write_bytes(blob)
        said: list[str] = []
        try:
            found = self._restore(said.append)
        except CheckpointError:
            if wanted is not None and not forged:
                report["lost"].append(f"{what}: refused, though step {wanted.step} is good")
            return
        except Exception as error:
            report["untidy"].append(f"{what}: {type(error).__name__}: {error}")
            return
        state, step = found
        if forged and step == self.newest.step:
            return
        if wanted is None or step != wanted.step or not _same(state, wanted.arrays):
            report["different"].append(f"{what}: step {step} was taken, not a word")
        elif wanted is not self.newest and not any(self.newest.name in text for text in said):
            report["untidy"].append(f"{what}: fell back without naming the file: {said}")

    def _restore(self, warn: Callable[[str], None]):
        from jaxcnn.runs.checkpoint import Checkpoints

        return Checkpoints(self.folder, self.run).restore(self.template, warn=warn)


def _same(state, arrays) -> bool:
    from jaxcnn.runs.checkpoint import to_arrays

    found = to_arrays(state)
    return found.keys() == arrays.keys() and all(
        (found[n].dtype, found[n].shape, found[n].tobytes())
        == (arrays[n].dtype, arrays[n].shape, arrays[n].tobytes())
        for n in arrays
    )


# ---- in the wrong place --------------------------------------------------------------------------


def misplaced(world: World, tally: Tally) -> None:
    """A whole and valid checkpoint under another one's name, or of another run."""
    golden, other = world.golden("EMA"), world.golden("batchnorm, dropout, augmentation")
    foreign, folder = world.golden("sweep by vmap"), world.place()

    def work(report: Report) -> int:
        place = _Place(golden.folder, folder)
        new, old = place.newest, place.before
        beyond = f"last-{new.step + 7:09d}.safetensors"
        twin = sorted((foreign.folder / "replicas/1/checkpoints").glob("last-*"))[-1].read_bytes()
        unlike = sorted((other.folder / "checkpoints").glob("last-*"))[-1].read_bytes()
        cases = [
            ("the older one copied over the newest", {new.name: old.blob}, old),
            ("the two swapped", {new.name: old.blob, old.name: new.blob}, None),
            ("renamed to a later step", {beyond: new.blob}, new),
            ("of another seed's run", {new.name: twin}, old),
            ("of another experiment's run", {new.name: unlike}, old),
        ]
        for what, contents, wanted in cases:
            place.check(what, contents, wanted, report)
        return len(cases)

    _in_child(tally, work)


# ---- with malice ---------------------------------------------------------------------------------


def sealed(header: dict, data: bytes) -> bytes:
    """A file with this header and the right seals, however mad the header is."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return sealed_again(len(text).to_bytes(8, "little") + text + data)


STRANGE = (None, -1, 2**63, 2**400, 1.5, "x", [], {}, [1, [2]], True, "F32", [2**40, 2**40])


def hostile(header: dict, generator: random.Random) -> dict:
    """A header in which one thing is another."""
    header = json.loads(json.dumps(header))
    names = [name for name in header if name != "__metadata__"]
    a, b = generator.sample(names, 2)
    kind = generator.choice(("value", "offset", "swap", "rename", "drop", "metadata", "shape"))
    if kind == "value":
        header[a][generator.choice(("dtype", "shape", "data_offsets"))] = generator.choice(STRANGE)
    elif kind == "offset":
        i, by = generator.randrange(2), generator.choice((-8, -1, 1, 4, 2**63, -(2**63)))
        header[a]["data_offsets"][i] += by
    elif kind == "swap":
        header[a], header[b] = header[b], header[a]
    elif kind == "rename":
        header[generator.choice((b, "../../x", "", a + "\0"))] = header.pop(a)
    elif kind == "drop":
        del header[generator.choice((a, "__metadata__"))]
    elif kind == "metadata":
        key = generator.choice((*header["__metadata__"], "more"))
        header["__metadata__"][key] = generator.choice(STRANGE)
    else:
        shape = header[a]["shape"]
        header[a]["shape"] = generator.choice(([*shape, 1], shape[::-1], [math.prod(shape)]))
    return header


def resealed(world: World, tally: Tally) -> None:
    """Headers that were changed with malice, under a seal that is right: refused in our words, or
    taken for what they are well made to say; a seal is no signature.
    """
    golden, seed, folder = world.golden("EMA"), world.random.randrange(2**32), world.place()

    def work(report: Report) -> int:
        place, count = _Place(golden.folder, folder), 0
        generator = random.Random(seed)
        end = 8 + int.from_bytes(place.newest.blob[:8], "little")
        header, data = json.loads(place.newest.blob[8:end]), place.newest.blob[end:]
        assert sealed(header, data) == place.newest.blob
        while count < MUTATIONS:
            other = hostile(header, generator)
            if other == header or _means_the_same(other, header):
                continue
            count += 1
            what = _first_difference(header, other)
            place.check(
                what, {place.newest.name: sealed(other, data)}, place.before, report, forged=True
            )
        return count

    _in_child(tally, work)


def _means_the_same(other: dict, header: dict) -> bool:
    """Whether all that is read is as it was: an unread entry of the metadata is nobody's harm."""
    read = ("step", "format", "sealed", "run", "kinds")
    one, two = ({**h, "__metadata__": h.get("__metadata__")} for h in (other, header))
    for h in (one, two):
        if isinstance(h["__metadata__"], dict):
            h["__metadata__"] = {k: v for k, v in h["__metadata__"].items() if k in read}
    return one == two


def _first_difference(header: dict, other: dict) -> str:
    def text(h: dict) -> Iterator[tuple[str, str]]:
        return ((name, json.dumps(value)) for name, value in h.items())

    changes = sorted(set(text(other)) ^ set(text(header)))
    return f"resealed: {changes[0][0]!r} is {changes[0][1][:100]}" if changes else "resealed"


# ---- the compilation cache -----------------------------------------------------------------------


def compilation_cache(world: World, tally: Tally) -> None:
    """Damaged files of JAX's persistent cache: the run must have the bits of any other."""
    name, folder, cache = "plain", world.place(), world.place()
    golden, generator = world.golden(name), world.random
    shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], cache)
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    files = [path for path in files if re.search("train_step|init|output", path.name)] or files
    kind = generator.choice(("cut", "empty", "flip"))
    for path in files:
        blob = bytearray(path.read_bytes())
        at = generator.randrange(len(blob)) if blob else 0
        if kind == "flip" and blob:
            blob[at] ^= 1 << generator.randrange(8)
        path.write_bytes(b"" if kind == "empty" else blob if kind == "flip" else blob[:at])

    def before() -> None:
        import jax

        jax.config.update("jax_compilation_cache_dir", str(cache))

    what = f"{kind} in {len(files)} files of the compilation cache"
    run = [*world.arguments(name), "--run-dir", folder]
    ended = Child(_train(run), before=before).wait()
    tally.tried += len(files)
    tally.runs += 1
    tally.latency = max(tally.latency, ended.seconds - golden.seconds)
    ok = tally.ended(ended, (0,), what)
    if ended.code == 0 and world.compare(name, folder, tally, what) and ok:
        tally.held += len(files)
    shutil.rmtree(cache)


def _train(arguments) -> Callable[[], int]:
    from tests.faults.children import command

    return command("train", *arguments)
