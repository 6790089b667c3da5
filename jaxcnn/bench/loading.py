"""`bench data`: how many examples a second an experiment's data are read and decoded, by how many
threads, and how many cores a device that trains faster would need.
"""

import math
import os
import time
from collections.abc import Iterator
from typing import Any

from jaxcnn.bench.report import doubts, spread
from jaxcnn.bench.timing import FEWEST_ROUNDS, Timer, alternate, fitting_steps, timing
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.dataset import Source, training_batch
from jaxcnn.data.stream import StreamSource, example_bytes
from jaxcnn.runs import environment

DEVICES = (1_000, 5_000)  # examples a second that a device trains


def threads() -> list[int]:
    """1, 2, 4, … up to the processors that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    powers = [2**i for i in range((count or 1).bit_length())]
    return list(dict.fromkeys([*powers, count or 1]))


def result(
    name: str, e: Experiment, *, rounds: int = FEWEST_ROUNDS, steps: int | None = None
) -> dict[str, Any]:
    """{"name", "examples", "batch_size", "bytes_per_example", "streaming", "threads": {number of
    threads: `timing`}, "scaling": {number: the speed over number x that of one thread},
    "cores_needed": {examples a second of a device: cores}, "environment"} of the training split, in
    the order of training. Without "threads" where the examples lie in memory.
    """
    source, spec = e.data.open("train"), e.data.spec()
    found: dict[str, Any] = {
        "name": name,
        "examples": len(source),
        "batch_size": e.batch_size,
        "bytes_per_example": example_bytes(spec),
        "streaming": source.streaming,
        "environment": environment.describe(),
    }
    if not isinstance(source, StreamSource):
        return found
    timers = {
        count: _timer(source.with_workers(count), seed=e.seed, batch_size=e.batch_size)
        for count in threads()
    }
    steps = steps or fitting_steps(timers[1])
    blocks = alternate(timers, steps=steps, rounds=rounds)
    took = {count: timing(block, batch_size=e.batch_size) for count, block in blocks.items()}
    one = took[1]["images_per_second"]
    speeds = {count: each["images_per_second"] for count, each in took.items()}
    return found | {
        "threads": took,
        "scaling": {count: speed / (count * one) for count, speed in speeds.items()},
        "cores_needed": {device: math.ceil(device / one) for device in DEVICES},
    }


def _timer(source: Source, *, seed: int, batch_size: int) -> Timer:
    """Seconds in which so many batches are taken, the next ones at each call."""
    step = 0

    def take(steps: int) -> float:
        nonlocal step
        start = time.perf_counter()
        for _ in range(steps):
            training_batch(source, seed, step, batch_size=batch_size)
            step += 1
        return time.perf_counter() - start

    return take


def as_text(found: dict[str, Any]) -> str:
    """Some lines of a result."""
    head = (
        f"{found['name']}: {found['examples']:,} examples of {found['bytes_per_example']:,} bytes "
        f"decoded, {found['batch_size']} a batch"
    )
    if "threads" not in found:
        return f"{head}\n  they {_where(found)}: there is nothing to be timed by threads"
    lines = [head, *_lines(found)]
    needed = "; ".join(
        f"{device:,} a second needs {cores:,}" for device, cores in found["cores_needed"].items()
    )
    return "\n".join([*lines, f"  cores like these for a device that trains {needed}"])


def _where(found: dict[str, Any]) -> str:
    return "are made or decoded as asked for" if found["streaming"] else "lie on the device"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for count, took in found["threads"].items():
        yield (
            f"  {count:3} {'thread ' if count == 1 else 'threads'} "
            f"{took['images_per_second']:>12,.0f} examples/s, {spread(took)} ms a batch, "
            f"{found['scaling'][count]:.0%} of {count} x one, n = {took['rounds']}{doubts(took)}"
        )


def as_markdown(found: list[dict[str, Any]]) -> str:
    """A line for each experiment and number of threads."""
    lines = ["| data | threads | examples/s | ms a batch (quartiles) | of threads x one | n |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for one in found:
        if "threads" not in one:
            lines.append(f"| {one['name']} | not timed: they {_where(one)} | | | | |")
        for count, took in one.get("threads", {}).items():
            speed, share = took["images_per_second"], one["scaling"][count]
            lines.append(
                f"| {one['name']} | {count} | {speed:,.0f} | {spread(took)} | {share:.0%} | "
                f"{took['rounds']}{doubts(took)} |"
            )
    return "\n".join(lines)
