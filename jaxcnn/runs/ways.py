"""How replicas run together: the fastest way is measured on the actual shapes, not assumed.

Convolutions under `vmap` over their weights become grouped convolutions, which are slower than a
loop on some hardware and several times faster on other. A way divides replicas into bundles, each
trained by one compiled program; a run of one replica is one bundle of one.
"""

import dataclasses
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import jax

from jaxcnn.core import hosts, transforms
from jaxcnn.core.meshes import Layout
from jaxcnn.core.protocols import AnyState, Batch, Device, Program, Tree
from jaxcnn.core.rendering import Json
from jaxcnn.errors import ConfigError, ResourceError, did_you_mean
from jaxcnn.runs import environment
from jaxcnn.weights.files import write_atomically

T = TypeVar("T")
ON_ALL = Layout()
KINDS = ("loop", "vmap", "unrolled", "devices")
SHARE = 0.1  # of the run's expected time that a trial of ways may take
# What compiling a step may take, in compilations of the solo step, rounded up: vmapped it took 1.22
# to 1.28, unrolled over four replicas 1.72 to 2.07 (digits_lenet5, fashion_mnist_cnn and _resnet;
# batch 16, no cache, n = 1 each; 2026-11-25, 2 cores of an Intel Xeon beside other work).
COMPILING, COMPILING_UNROLLED = 1.5, 0.5  # the second for each replica


@dataclasses.dataclass(frozen=True)
class Bundle:
    """`count` replicas that one program trains. "solo": the program itself, with the bits of a solo
    run; "vmap": along a leading axis; "unrolled": a tuple of states, one after another.
    """

    kind: str
    count: int
    single: Program  # compiled, a step a dispatch; batches [B, …], or [count, B, …] unless solo
    many: Program  # compiled, many steps a dispatch; batches have one more leading axis
    device: Device | None = (
        None  # where it runs; None: the default device, or all of them along the rows
    )

    def join(self, states: list[AnyState]) -> Tree:
        """One state for the program, from the states of solo runs, wherever these lie."""
        states = states if self.device is None else jax.device_put(states, self.device)
        if self.kind == "solo":
            (joined,) = states
        elif self.kind == "unrolled":
            joined = tuple(states)
        else:
            joined = jax.tree.map(lambda *x: jax.numpy.stack(x), *states)
        return joined

    def split(self, state: Tree) -> list[AnyState]:
        """The states of solo runs: the inverse of `join`."""
        if self.kind == "solo":
            return [state]
        if self.kind == "unrolled":
            return list(state)
        return [jax.tree.map(lambda x, i=i: x[i], state) for i in range(self.count)]

    def read(self, state: Tree, name: str) -> Tree:
        """One field of the states, such as "live": an array, or a list of them, of all replicas."""
        if self.kind == "unrolled":
            return [getattr(one, name) for one in state]
        return getattr(state, name)


@dataclasses.dataclass(frozen=True)
class Way:
    """`kind` and the sizes of its bundles.

    "loop" (a dispatch each; the bits of solo runs), "vmap" (all at once), "unrolled" (all in one
    dispatch, without vmap), "devices" (an equal bundle on each device), or "chunks" of equal size,
    a dispatch each.
    """

    kind: str
    sizes: tuple[int, ...]

    @staticmethod
    def from_text(text: str, replicas: int) -> "Way":
        """The way named `text` (one of KINDS, or a chunk size) for so many replicas.

        Errors: ConfigError.
        """
        if text.isdecimal() and len(text) < 10 and int(text) >= 1:
            return Way("chunks", _chunks(replicas, int(text)))
        if text == "loop":
            return Way(text, (1,) * replicas)
        if text in ("vmap", "unrolled"):
            return Way(text, (replicas,))
        if text == "devices" and hosts.count() == 1:
            return Way(text, _chunks(replicas, -(-replicas // len(jax.devices()))))
        if text == "devices":
            raise ConfigError("--replicas-by devices: leaves no rows to several hosts; say vmap")
        raise ConfigError(
            f"--replicas-by {text!r}: must be a chunk size or one of "
            f"{', '.join(KINDS)}{did_you_mean(text, KINDS)}"
        )

    def text(self) -> str:
        """The name that `from_text` takes."""
        return str(self.sizes[0]) if self.kind == "chunks" else self.kind

    def resized(self, replicas: int) -> "Way":
        """The same way for another number of replicas."""
        return Way.from_text(self.text(), replicas)

    def bundles(self, program: Program, *, layout: Layout = ON_ALL) -> list[Bundle]:
        """The compiled programs of all replicas, in their order; equal bundles share one."""
        if self.kind == "devices" and layout != ON_ALL:
            raise ConfigError(
                "--replicas-by devices: each device trains replicas of its own, so a mesh or layout"
                " has no place; leave it out, or say vmap"
            )
        made: dict[int, Bundle] = {}
        out = []
        for i, size in enumerate(self.sizes):
            device = jax.devices()[i % len(jax.devices())] if self.kind == "devices" else None
            kind = "solo" if size == 1 else "unrolled" if self.kind == "unrolled" else "vmap"
            if size not in made:
                made[size] = _bundle(program, kind, size, layout if device is None else None)
            out.append(dataclasses.replace(made[size], device=device))
        return out


def _chunks(replicas: int, size: int) -> tuple[int, ...]:
    whole, rest = divmod(replicas, size)
    return (size,) * whole + ((rest,) if rest else ())


def _bundle(program: Program, kind: str, count: int, layout: Layout | None) -> Bundle:
    """layout: None where each bundle has a device of its own, so that none is split."""
    if kind == "vmap":
        program = transforms.replicate(program)
    elif kind == "unrolled":
        program = transforms.unroll(program, count)
    axes = 0 if kind == "solo" else 1

    def compiled(p: Program, axes: int) -> Program:
        if layout is None:
            return transforms.compile(p)
        return transforms.on_devices(p, layout=layout, axes=axes)

    return Bundle(
        kind, count, compiled(program, axes), compiled(transforms.scan(program), axes + 1)
    )


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a trial of ways needs to know of the run.

    states(): fresh states of all replicas. batches(way): a training batch for each of its bundles.
    steps: of the whole run. about: JSON-able, identifies the experiment and its shapes: a choice is
    remembered in the user's cache for the same experiment, shapes and machine.
    """

    program: Program
    replicas: int
    states: Callable[[], list[AnyState]]
    batches: Callable[[Way], list[Batch]]
    steps: int
    about: Json
    say: Callable[[str], None]
    # (number of ways done, of all, what comes next): the console shows a bar
    progress: Callable[[int, int, str], None] = lambda done, total, text: None
    layout: Layout = ON_ALL


def choose(trial: Trial, *, forced: str | None = None) -> Way:
    """The way with the smallest median time of a training step, "loop" first among equals (within
    3 %). The trial takes at most SHARE of the time that the run would take by "loop": a way whose
    compilation would not fit is left out, and said.
    """
    if forced:
        return Way.from_text(forced, trial.replicas)
    if trial.replicas == 1:
        return Way.from_text("loop", 1)
    if hosts.count() > 1:
        raise ConfigError(
            "several hosts: say how replicas run, e.g. --replicas-by vmap or loop; each would find "
            "another way the fastest"
        )
    remembered = _memory(trial)
    if remembered.exists():
        try:
            return Way.from_text(json.loads(remembered.read_text())["way"], trial.replicas)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
            remembered.unlink(missing_ok=True)
    names = candidates(trial.replicas, layout=trial.layout)
    seconds = measure(trial, names)
    best = min(seconds, key=lambda name: seconds[name] * (0.97 if name == "loop" else 1.0))
    shown = ", ".join(
        f"{name} {1e3 * s / trial.replicas:.2f}"
        for name, s in sorted(seconds.items(), key=lambda item: item[1])
    )
    trial.say(f"replicas by {best!r} (ms per replica and step: {shown})")
    if len(seconds) <= len(names):  # a longer run would try more
        return Way.from_text(best, trial.replicas)
    try:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"way": best, "seconds": seconds}).encode()
        write_atomically(remembered, [content])
    except (OSError, ResourceError):
        pass  # it will be measured again
    return Way.from_text(best, trial.replicas)


def candidates(replicas: int, *, layout: Layout = ON_ALL) -> list[str]:
    """The ways worth a trial, those that are likeliest to pay first."""
    names = ["vmap", *(str(size) for size in (4, 16) if size < replicas)]
    if len(jax.devices()) > 1 and layout == ON_ALL:
        names.append("devices")
    # unrolling compiles every replica anew
    return [*names, "unrolled"] if replicas <= 8 else names


def measure(trial: Trial, names: list[str], *, repeats: int = 5) -> dict[str, float]:
    """{way: median seconds of a training step of all replicas}, in turns, after one to compile;
    "loop" always, the others while they fit into SHARE of the run.
    """
    total = len(names) + 2
    trial.progress(0, total, f"ways to run {trial.replicas} replicas: compiling loop")
    start = time.perf_counter()
    loop = _Runner(trial, "loop")
    compiling = time.perf_counter() - start
    once = statistics.median(loop.step() for _ in range(2))
    spare = SHARE * once * trial.steps
    ready = {"loop": loop}
    for done, name in enumerate(names, 1):
        unrolled = COMPILING_UNROLLED * trial.replicas
        factor = max(COMPILING, unrolled) if name == "unrolled" else COMPILING
        expected = factor * compiling + repeats * once
        if expected > spare:
            trial.say(
                f"{name}: not tried, compiling it may take {expected:.1f} s and a trial "
                f"{max(spare, 0.0):.1f} s more ({SHARE:.0%} of the run); --replicas-by forces it"
            )
            continue
        trial.progress(done, total, f"compiling {name}")
        start = time.perf_counter()
        try:
            ready[name] = _Runner(trial, name)
        except ResourceError as error:
            trial.say(f"{name}: not tried: {error}")
        spare -= time.perf_counter() - start
    if len(ready) == 1:
        trial.progress(total, total, "measured")
        return {"loop": once}
    trial.progress(total - 1, total, f"measuring {', '.join(ready)}")
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(repeats):
        for name, runner in ready.items():
            times[name].append(runner.step())
    trial.progress(total, total, "measured")
    return {name: statistics.median(values) for name, values in times.items()}


class _Runner:
    """A way that was compiled by a first step."""

    def __init__(self, trial: Trial, name: str):
        way = Way.from_text(name, trial.replicas)
        states = iter(trial.states())
        self.batches = trial.batches(way)
        self.bundles = way.bundles(trial.program, layout=trial.layout)
        self.states = [b.join([next(states) for _ in range(b.count)]) for b in self.bundles]
        self.step()

    def step(self) -> float:
        """Seconds of a step of all replicas."""
        start = time.perf_counter()
        for i, (bundle, batch) in enumerate(zip(self.bundles, self.batches, strict=True)):
            self.states[i], _ = bundle.single.train_step(self.states[i], batch)
        jax.block_until_ready(self.states)
        return time.perf_counter() - start


def by_bundle(sizes: tuple[int, ...], items: list[T]) -> Iterator[list[T]]:
    """The items of each bundle."""
    start = 0
    for size in sizes:
        yield items[start : start + size]
        start += size


def _memory(trial: Trial) -> Path:
    seen = environment.describe()
    names = ("versions", "device", "num_devices", "NPROC", "XLA_FLAGS", "settings", "processor")
    where = {name: seen[name] for name in names}
    text = json.dumps([trial.about, trial.replicas, where], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    return environment.cache_folder() / "ways" / f"{key}.json"
