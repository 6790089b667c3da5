"""`bench --suite`: many rows in one call, each written as it ends, so that a call cut short leaves
what it has and the next goes on from there.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcnn.bench import measure, report, sweep
from jaxcnn.bench.load import judged, usage
from jaxcnn.bench.process import Peer, environments
from jaxcnn.bench.replicas import trial
from jaxcnn.bench.rows import SUITES, Row
from jaxcnn.bench.subjects import Subject, choose
from jaxcnn.bench.timing import alternate, timing
from jaxcnn.core import transforms
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.errors import ConfigError, DependencyError, JaxcnnError, ResourceError, did_you_mean
from jaxcnn.runs import environment, ways
from jaxcnn.runs.evaluation import open_checked
from jaxcnn.runs.feed import batches, pieces

TOY_BATCH, REPLICAS, TOY_REPLICAS = "2", 64, 2
# of each peer, and of the definitions of its networks
PACKAGES = {"torch": ("torch", "torchvision", "timm"), "keras": ("keras",)}
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How all rows of a call are measured; rows of another call with others are not taken over."""

    suite: str
    peers: tuple[str, ...] = ()
    tuning: str = "both"
    torch_compile: bool = False
    rounds: int = 7
    steps: int | None = None
    toy: bool = False


def chosen(suite: str, names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of a suite, or those of these networks. Errors: ConfigError for a name that it
    lacks.
    """
    rows = SUITES[suite]
    known = list(dict.fromkeys(row.name for row in rows))
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--suite {suite}: {name!r} is none of its rows, which are {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
    return tuple(row for row in rows if not names or row.name in names)


def run(
    settings: Settings,
    rows: Sequence[Row],
    *,
    folder: Path,
    outside: dict[str, str],
    minutes: float | None = None,
    say: Say = lambda message: None,
) -> list[dict[str, Any]]:
    """Measure the rows that `folder` does not have yet, and return all.

    outside: the environment of peers' users. minutes: no row is begun after them.
    Errors: ConfigError for a sheet of results that cannot be read.
    """
    sheet, start = Sheet(folder, settings, say=say), time.perf_counter()
    for number, row in enumerate(rows, 1):
        if sheet.has(row):
            say(f"{number}/{len(rows)} {row.name} {row.dtype}: measured already")
            continue
        if minutes is not None and time.perf_counter() - start > 60 * minutes:
            say(f"--minutes {minutes:g} are over; {len(rows) - number + 1} rows are left")
            break
        try:
            found = measured(row, settings, outside=outside, say=say)
        except (JaxcnnError, MemoryError, RuntimeError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            found = {"name": row.name, "dtype": row.dtype, "error": lines[0], **sheet.where}
            found["batch_size"] = TOY_BATCH if settings.toy else row.batch_size
        sheet.add(row, found)
        say(f"{number}/{len(rows)} {row.name} {row.dtype}: {in_brief(found)}")
        jax.clear_caches()  # programs of the row before hold memory
    say(f"results: {sheet.path}.json, .csv, .md")
    return [found for row in rows for found in sheet.of(row)]


def in_brief(found: dict[str, Any]) -> str:
    """One line of a result."""
    if "error" in found:
        return found["error"]
    if "train" not in found:
        return report.plain(found)
    parts = [f"{kind} {report.spread(found[kind])} ms" for kind in measure.KINDS]
    for name, peer in found["peers"].items():
        for kind, c in (("train", peer), ("inference", peer["inference"])):
            parts.append(f"{kind} / {name}'s best {c['ratio']:.2f}{report.unordered(c)}")
    return "; ".join(parts)


# ---- one row -------------------------------------------------------------------------------------


def measured(row: Row, settings: Settings, *, outside: dict[str, str], say: Say) -> dict[str, Any]:
    """The result of one row, beside those peers that have its network."""
    overrides = list(row.toy if settings.toy else row.overrides)
    sizes = TOY_BATCH if settings.toy else row.batch_size
    subject = choose(row.name, overrides, bare=True, synthetic=True)
    if row.kind != "steps":
        e = dataclasses.replace(subject.experiment, batch_size=int(sizes), compute_dtype=row.dtype)
        count = TOY_REPLICAS if settings.toy else REPLICAS
        special = epoch(e, settings.rounds) if row.kind == "epoch" else replicas(e, count, settings)
        head = {"name": row.name, "model": type(e.model).__name__, "dtype": row.dtype}
        where = {"environment": sweep.surroundings()}
        return {**head, "batch_size": e.batch_size, **special, **where}
    peers, without = those_with(subject, settings.peers)
    size = best_batch_size(subject, row.dtype, sizes) if "," in sizes else sizes
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(Peer(peer, tuning=tuning, environment=variables))
            for peer in peers
            for tuning, variables in environments(settings.tuning, outside).items()
        ]
        (result,) = sweep.results(
            [subject],
            opened,
            dtypes=(row.dtype,),
            batch_size=size,
            torch_compile=settings.torch_compile,
            steps=settings.steps,
            rounds=settings.rounds,
            say=say,
        )
    return {**result, "without": without}


def those_with(subject: Subject, peers: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(the peers that have the subject's network, {another: why it has not})."""
    having, without = [], {}
    for peer in peers:
        try:
            sweep.counterpart(subject, peer)
            having.append(peer)
        except (ConfigError, DependencyError) as error:
            without[peer] = str(error)
    return having, without


def best_batch_size(subject: Subject, dtype: str, sizes: str) -> str:
    """That of `sizes`, ascending, with the most images a second in training; those after one that
    is slower or finds no memory are not tried.
    """
    best, fastest = sizes.split(",")[0], 0.0
    for found in sweep.results([subject], [], dtypes=(dtype,), batch_size=sizes, rounds=3):
        speed = found["train"]["images_per_second"] if "train" in found else 0.0
        if speed <= fastest:
            break
        best, fastest = str(found["batch_size"]), speed
    return best


def epoch(e: Experiment, rounds: int) -> dict[str, Any]:
    """{"epoch": the timing of one pass over the training split as a run makes it, batches gathered
    and dispatched as there; its "ms_per_step" are those of the whole}.
    """
    source = open_checked(e, "train")
    ours, steps = measure.Compiled(e, source), len(source) // e.batch_size
    program = transforms.compile(make_program(e, steps=1_000_000))

    def once(_: int) -> float:
        whole = pieces(0, steps, size=ours.dispatch, intervals=())
        start = time.perf_counter()
        for (first, end), batch in batches(source, whole, seed=e.seed, batch_size=e.batch_size):
            full = end - first == ours.dispatch
            step = ours.steps["train"] if full else program.train_step
            ours.state = step(ours.state, jax.device_put(batch))[0]
        jax.block_until_ready(ours.state)
        return time.perf_counter() - start

    once(1)
    blocks = alternate({"": once}, steps=1, rounds=rounds)[""]
    return {"epoch": {**timing(blocks, batch_size=steps * e.batch_size), "steps": steps}}


def replicas(e: Experiment, count: int, settings: Settings) -> dict[str, Any]:
    """{"replicas": {"count", "ms_per_step" of each way of a step of all, "times_as_fast" (one after
    another / the best way), "disturbed"}}.
    """
    before, start = usage(None), time.perf_counter()
    seconds = ways.measure(trial(e, count), ["vmap"], repeats=settings.rounds)
    block = judged(time.perf_counter() - start, before, usage(None))
    return {
        "replicas": {
            "count": count,
            "ms_per_step": {way: 1e3 * s for way, s in seconds.items()},
            "times_as_fast": seconds["loop"] / min(seconds.values()),
            "disturbed": block.disturbed,
        }
    }


def packages(peers: Sequence[str]) -> dict[str, str | None]:
    """The versions of all that the peers' times depend on; None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in dict.fromkeys(name for peer in peers for name in PACKAGES[peer]):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


# ---- what is kept --------------------------------------------------------------------------------


class Sheet:
    """The rows of a suite on this machine, in `folder` as DEVICE-DATE.json, .csv and .md.

    It goes on with the newest sheet that was made under the same settings, conditions and versions
    of the peers; where there is none it begins another, and leaves all others alone.
    Errors: ConfigError for a sheet that cannot be read.
    """

    def __init__(self, folder: Path, settings: Settings, *, say: Say):
        self.where = {"environment": sweep.surroundings()}
        made = dataclasses.asdict(settings) | {"packages": packages(settings.peers)}
        self.settings = json.loads(json.dumps(made))
        here = self.where["environment"]
        device = f"cpu {here['processor']}" if settings.suite == "cpu" else here["device"]
        stem = re.sub(r"[^a-z0-9]+", "-", f"{device}{' toy' if settings.toy else ''}".lower())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"--out {folder}: cannot be made ({error.strerror}); choose another folder"
            ) from error
        self.rows: list[dict[str, Any]] = []
        for path in sorted(folder.glob(f"{stem.strip('-')}-2*.json"), reverse=True):
            rows = self._read(path)
            if rows and self._alike(rows[0]):
                self.path, self.rows = path.with_suffix(""), rows
                say(f"going on with {path}, which has {len(rows)} rows")
                return
        today = f"{stem.strip('-')}-{datetime.date.today():%Y-%m-%d}"
        names = (f"{today}{f'-{n}' if n > 1 else ''}" for n in range(1, 1000))
        self.path = next(folder / n for n in names if not (folder / f"{n}.json").exists())

    def _read(self, path: Path) -> list[dict[str, Any]]:
        try:
            rows = json.loads(path.read_text())
            for row in rows:  # what is read of them
                _ = row["row"], row["settings"], row["environment"]["commit"]
            return rows
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: is no sheet of results ({error}); move it away, or choose another --out"
            ) from error

    def _alike(self, row: dict[str, Any]) -> bool:
        then, now = row["environment"], self.where["environment"]
        same = not environment.differences(then, now) and then["commit"] == now["commit"]
        return row["settings"] == self.settings and same

    def has(self, row: Row) -> bool:
        """Whether the row was measured; one that failed was not."""
        return any("error" not in found for found in self.of(row))

    def of(self, row: Row) -> list[dict[str, Any]]:
        """The results of a row: one or none."""
        key = json.loads(json.dumps(row._asdict()))
        return [found for found in self.rows if found["row"] == key]

    def add(self, row: Row, found: dict[str, Any]) -> None:
        """Keep a result, in place of an earlier one of the row, and write all three files anew."""
        kept = json.loads(json.dumps({**found, "row": row._asdict(), "settings": self.settings}))
        self.rows = [other for other in self.rows if other["row"] != kept["row"]] + [kept]
        texts = {
            "json": json.dumps(self.rows, indent=1),
            "csv": report.as_csv(self.rows),
            "md": report.as_markdown(self.rows),
        }
        for suffix, text in texts.items():
            path = self.path.with_name(f"{self.path.name}.{suffix}")
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(text + "\n")
            os.replace(partial, path)
