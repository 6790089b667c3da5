"""How replicas are run together: the fastest way is measured on the actual shapes, not assumed.

Convolutions under `vmap` over their weights become grouped convolutions, which are slower than a
loop on some hardware and several times faster on other.
"""

import dataclasses
import hashlib
import json
import statistics
import time
from typing import Any

import jax

from jaxcnn.runs import environment
from jaxcnn.core import transforms
from jaxcnn.runs.checkpoint import write_atomically
from jaxcnn.errors import ConfigError, ResourceError, did_you_mean
from jaxcnn.runs.writers import Console
from jaxcnn.core.program import Program

KINDS = ("loop", "vmap", "unrolled", "devices")


@dataclasses.dataclass(frozen=True)
class Way:
    """`kind` and the sizes of the vmapped chunks.

    "loop" (a dispatch each; the bits of solo runs), "vmap" (all at once), "unrolled" (all in one
    dispatch, without vmap), "devices" (an equal chunk on each device), or "chunks" of equal size, a
    dispatch each.
    """

    kind: str
    sizes: tuple[int, ...]

    @staticmethod
    def from_text(text: str, replicas: int) -> "Way":
        """The way named `text` (one of KINDS, or a chunk size) for so many replicas. Errors:
        ConfigError.
        """
        if text.isdigit() and int(text) >= 1:
            return Way("chunks", _chunks(replicas, int(text)))
        if text in ("loop", "unrolled"):
            return Way(text, (1,) * replicas)
        if text == "vmap":
            return Way(text, (replicas,))
        if text == "devices":
            return Way(text, _chunks(replicas, -(-replicas // len(jax.devices()))))
        raise ConfigError(f"--replicas-by {text!r}: must be a chunk size or one of "
                          f"{', '.join(KINDS)}{did_you_mean(text, KINDS)}")

    def text(self) -> str:
        """The name that `from_text` takes."""
        return str(self.sizes[0]) if self.kind == "chunks" else self.kind

    def resized(self, replicas: int) -> "Way":
        """The same way for another number of replicas."""
        return Way.from_text(self.text(), replicas)

    def apply(self, program: Program) -> Program:
        """The compiled program of all replicas; its state is a tuple of chunks
        (jaxcnn.core.transforms.chunked).
        """
        devices = jax.devices() if self.kind == "devices" else None
        return transforms.chunked(program, self.sizes, together=self.kind == "unrolled", devices=devices)


def _chunks(replicas: int, size: int) -> tuple[int, ...]:
    whole, rest = divmod(replicas, size)
    return (size,) * whole + ((rest,) if rest else ())


def choose(
    program: Program, keys: Any, numbers: dict, batch: dict, *, forced: str | None = None, console: Console, about: Any, repeats: int = 5
) -> Way:
    """The way with the smallest median time of a training step on these replicas and this batch,
    "loop" first among equals (within 3 %).

    `about` (JSON-able) identifies the experiment: a choice is remembered in the user's cache for
    the same experiment, shapes and machine.
    """
    replicas = len(keys)
    if forced:
        return Way.from_text(forced, replicas)
    if replicas == 1:
        return Way.from_text("loop", 1)
    remembered = _memory(about, batch)
    if remembered.exists():
        try:
            return Way.from_text(json.loads(remembered.read_text())["way"], replicas)
        except (ValueError, KeyError, ConfigError):
            remembered.unlink(missing_ok=True)
    names = ["loop", "vmap"] + [str(size) for size in (4, 16) if size < replicas] + (["devices"] if len(jax.devices()) > 1 else [])
    if replicas <= 8:  # unrolling compiles every replica anew
        names.append("unrolled")
    seconds = trial(program, keys, numbers, batch, names, repeats=repeats)
    best = min(seconds, key=lambda name: seconds[name] * (0.97 if name == "loop" else 1.0))
    shown = ", ".join(f"{name} "
                      f"{1e3 * s / replicas:.2f}" for name, s in sorted(seconds.items(), key=lambda item: item[1]))
    console.line(f"replicas by {best!r} (ms per replica and step: {shown})")
    try:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(remembered, [json.dumps({"way": best, "seconds": seconds}).encode()])
    except (OSError, ResourceError):
        pass  # it will be measured again
    return Way.from_text(best, replicas)


def trial(program: Program, keys: Any, numbers: dict, batch: dict, names: list[str], *, repeats: int) -> dict[str, float]:
    """{way: median seconds of a training step of all replicas}, measured in turns, after one step
    to compile.
    """
    ready = {}
    for name in names:
        compiled = Way.from_text(name, len(keys)).apply(program)
        state, metrics = compiled.train_step(compiled.init(keys, numbers), batch)
        jax.block_until_ready(metrics)
        ready[name] = (compiled, state)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, (compiled, state) in list(ready.items()):
            start = time.perf_counter()
            state, metrics = compiled.train_step(state, batch)
            jax.block_until_ready((state, metrics))
            times[name].append(time.perf_counter() - start)
            ready[name] = (compiled, state)
    return {name: statistics.median(values) for name, values in times.items()}


def _memory(about: Any, batch: dict) -> Any:
    seen = environment.describe()
    where = {name: seen[name] for name in ("versions", "device", "num_devices", "NPROC", "XLA_FLAGS", "processor")}
    shapes = {name: [list(x.shape), str(x.dtype)] for name, x in batch.items()}
    text = json.dumps([about, where, shapes], sort_keys=True)
    return environment.cache_folder() / "ways" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
