"""How fast an experiment's program runs on this machine, measured so that the number can be
trusted.

Time is taken of whole blocks of steps: the device is idle before a block and again after it, and
nothing waits in between. Compilation and warm-up are not in it. Blocks of all that is compared
alternate, in an order that is turned round every time, so that a machine that slows down slows all
of them. Floating-point operations are two for each multiply-accumulate of the layers
(jaxcnn.inspect.summary), three times as many in training; peaks of the device are measured, not
looked up. docs/performance.md says how to read the results.
"""

import dataclasses
import itertools
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.bench import load, roofline
from jaxcnn.bench.process import Peer
from jaxcnn.bench.timing import Timer, alternate, compare, fitting_steps, timing
from jaxcnn.core import transforms
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import model_inputs, prepare
from jaxcnn.core.memory import call_bytes
from jaxcnn.core.program import make_program
from jaxcnn.data.dataset import Source
from jaxcnn.inspect.summary import summarize_layers, total_macs
from jaxcnn.runs import fragments
from jaxcnn.runs.feed import batches, pieces, steps_per_dispatch
from jaxcnn.runs.profiling import tracing
from jaxcnn.tasks.task import BaseTask

KINDS = ("train", "inference")
TRACED = 5  # steps


@dataclasses.dataclass(frozen=True)
class SquaredOutputs(BaseTask):
    """A task for a model without one: the mean square of each example's outputs, whatever they are.
    Its gradient reaches every layer.
    """

    inputs: tuple[str, ...] = ("image",)
    metric: str = "loss"
    larger_is_better: bool = False

    def loss(self, outputs: Any, batch: dict) -> jax.Array:
        """[B] float32 from a pytree of arrays [B, …]."""
        return sum(jnp.square(x).reshape(x.shape[0], -1).mean(1) for x in jax.tree.leaves(outputs))  # pyright: ignore[reportReturnType]

    def statistics(self, outputs: Any, batch: dict) -> dict[str, jax.Array]:
        """The sum of the losses."""
        return {
            "loss": (self.loss(outputs, batch) * batch["mask"]).sum(),
            "count": batch["mask"].sum(),
        }

    def summarize(self, sums: dict, records: dict) -> dict[str, float]:
        """The mean loss."""
        return {"loss": float(sums["loss"] / sums["count"])}


class Noise:
    """`size` random examples of the shapes and dtypes of the experiment's data, on the device; all
    labels are 0, which every task has.
    """

    streaming = False

    def __init__(self, e: Experiment, size: int):
        random, arrays = np.random.default_rng(0), {}
        for name, s in e.data.spec().items():
            shape = (size, *s.shape)
            if np.issubdtype(s.dtype, np.floating):
                arrays[name] = random.random(shape, np.float32)
            else:
                high = {np.dtype(np.uint8): 256, np.dtype(bool): 2}.get(np.dtype(s.dtype), 1)
                arrays[name] = random.integers(0, high, shape).astype(s.dtype)
        self.arrays, self.size = jax.device_put(arrays), size

    def __len__(self) -> int:
        return self.size

    def take(self, indices: np.ndarray) -> dict[str, jax.Array]:
        """The examples at `indices` (int, any shape [...]), gathered on the device."""
        return _gather(self.arrays, jnp.asarray(indices))


@jax.jit
def _gather(arrays: dict[str, jax.Array], indices: jax.Array) -> dict[str, jax.Array]:
    return {name: x.at[indices].get(mode="promise_in_bounds") for name, x in arrays.items()}


# ---- the program that is timed -------------------------------------------------------------------


class Compiled:
    """What a run dispatches of an experiment in training, `dispatch` steps at once, and the
    inference step, compiled for one device, with a state and batches to run them on.

    Called `time(kind, steps)`, kind "train" or "inference", it runs a block and returns seconds.
    The state is donated from dispatch to dispatch.
    """

    def __init__(self, e: Experiment, source: Source):
        # the schedule never ends while we measure
        program = make_program(e, steps=1_000_000)
        self.experiment, self.source = e, source
        self.dispatch = steps_per_dispatch(e, source)
        rows = np.arange(self.dispatch * e.batch_size) % len(source)
        self.batch = jax.device_put(source.take(rows[: e.batch_size]))
        self.batches = self.batch
        if self.dispatch > 1:
            program = transforms.scan(program)
            self.batches = jax.device_put(source.take(rows.reshape(self.dispatch, -1)))
        program = transforms.compile(program)
        self.state = program.init(jax.random.key(e.seed))
        infer = jax.jit(lambda state, batch: program.output_step(state, batch)[0])
        jax.block_until_ready((self.state, self.batches))
        self.steps, self.compile_seconds = {}, {}
        for kind, step, batch in zip(
            KINDS, (program.train_step, infer), (self.batches, self.batch), strict=True
        ):
            self.steps[kind], self.compile_seconds[kind] = compile_step(step, self.state, batch)

    def time(self, kind: str, steps: int) -> float:
        """Seconds of a block of so many steps on batches that lie on the device. Training runs
        whole dispatches, as many as have that many steps, and counts of their time what is due to
        `steps`.
        """
        step, outputs = self.steps[kind], None
        calls = math.ceil(steps / self.dispatch) if kind == "train" else steps
        start = time.perf_counter()
        for _ in range(calls):
            if kind == "train":
                self.state, outputs = step(self.state, self.batches)
            else:
                outputs = step(self.state, self.batch)
        jax.block_until_ready((self.state, outputs))
        seconds = time.perf_counter() - start
        return seconds * steps / (calls * self.dispatch) if kind == "train" else seconds

    def bytes_accessed(self, kind: str) -> float | None:
        """The compiler's estimate for one step. It counts a loop's body once; on CPU there is no
        loop, but the steps one after another (`transforms.scan`).
        """
        count = roofline.bytes_accessed(self.steps[kind])
        unrolled = kind == "train" and jax.default_backend() == "cpu"
        return count / self.dispatch if count and unrolled else count

    def data_stall_share(self, steps: int) -> float:
        """The share of a short real training loop of `steps` dispatches that is spent waiting for
        the next batches, in [0, 1].

        The device is idle when a batch is asked for, so this is the most that feeding can cost: in
        a run it overlaps with the steps.
        """
        e, waited = self.experiment, 0.0
        k = self.dispatch
        whole = pieces(0, (steps + 1) * k, size=k, intervals=())
        feed = (
            batch for _, batch in batches(self.source, whole, seed=e.seed, batch_size=e.batch_size)
        )
        jax.block_until_ready(jax.device_put(next(feed)))  # shuffles, starts workers, compiles
        start = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = jax.block_until_ready(jax.device_put(next(feed)))
            waited += time.perf_counter() - asked
            self.state, _ = self.steps["train"](self.state, batch)
            jax.block_until_ready(self.state)
        return waited / (time.perf_counter() - start)

    def trace(self, folder: Path) -> None:
        """A trace of TRACED steps of each kind, one after another, in `folder`."""
        with tracing(folder):
            for kind in KINDS:
                for i in range(TRACED):
                    with jax.profiler.StepTraceAnnotation(kind, step_num=i + 1):
                        self.time(kind, 1)

    def macs(self, kind: str) -> int:
        """Multiply-accumulates of one example's forward pass, as a step of that kind makes it."""
        e, train = self.experiment, kind == "train"
        key = jax.random.key(0) if train else None  # augmentation may change the size
        inputs = jax.eval_shape(lambda b: model_inputs(e, prepare(e, b, key=key)), self.batch)
        return total_macs(summarize_layers(e.model, inputs, train=train))


def compile_step(step: Any, *arguments: Any) -> tuple[Any, dict[str, Any]]:
    """(the compiled function, {"trace", "lower", "compile" seconds, "cache": "hit", "miss" or
    "off"}) of a function under `jax.jit`.
    """
    hits: list[str] = []

    def listen(event: str, **_):
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        times = [time.perf_counter()]
        traced = step.trace(*arguments)
        times.append(time.perf_counter())
        lowered = traced.lower()
        times.append(time.perf_counter())
        compiled = lowered.compile()
        times.append(time.perf_counter())
    finally:
        jax.monitoring.unregister_event_listener(listen)
    fragments.settle()
    cache = "hit" if hits else "miss" if jax.config.jax_compilation_cache_dir else "off"  # pyright: ignore[reportAttributeAccessIssue]
    seconds = (b - a for a, b in itertools.pairwise(times))
    return compiled, {
        **dict(zip(("trace", "lower", "compile"), seconds, strict=True)),
        "cache": cache,
    }


# ---- all of it -----------------------------------------------------------------------------------


def measure(
    e: Experiment,
    *,
    source: Source,
    peak: dict[str, Any],
    peers: Sequence[Peer] = (),
    steps: int | None = None,
    rounds: int = 7,
    trace: Path | None = None,
) -> dict[str, Any]:
    """Throughput, compilation, memory, roofline, data stall and the comparison with peers of one
    experiment as it is, on one device.

    peers: open; steps: of a block (default: as many as last half a second); trace: a folder for a
        trace of some steps, made after they were timed.
    Errors: RuntimeError with RESOURCE_EXHAUSTED where memory does not suffice.
    """
    ours = Compiled(e, source)
    require_room(ours)
    result: dict[str, Any] = {
        "params": sum(x.size for x in jax.tree.leaves(ours.state.params)),
        "macs": ours.macs("inference"),
        "steps_per_dispatch": ours.dispatch,
    }
    result["compile_seconds"] = sum(
        ours.compile_seconds["train"][part] for part in ("trace", "lower", "compile")
    )
    result["compile"] = ours.compile_seconds
    compared: dict[str, dict] = {}
    for kind in KINDS:
        taken, block = in_turns(ours, peers, kind, steps=steps, rounds=rounds)
        place = roofline.position(
            roofline.flop_count(ours.macs(kind), e.batch_size, kind),
            taken[OURS]["ms_per_step"] / 1e3,
            ours.bytes_accessed(kind),
            peak,
        )
        result[kind] = {**taken[OURS], "steps": block, **place}
        for name in dict.fromkeys(peer.name for peer in peers):
            comparison = beside(name, taken, [peer for peer in peers if peer.name == name])
            compared.setdefault(name, {})
            compared[name] |= comparison if kind == "train" else {kind: comparison}
    for peer in peers:
        compared[peer.name] |= peer.facts
    if trace is not None:
        ours.trace(trace)
    result["data_stall_share"] = ours.data_stall_share(min(50, result["train"]["steps"] + 4))
    result["memory"] = roofline.memory(ours.steps)
    result["diverged"] = not bool(ours.state.live)
    return {**result, "peers": compared}


def require_room(ours: Compiled) -> None:
    """Errors: RuntimeError with RESOURCE_EXHAUSTED where a step needs more of the host's memory
    than is free, and the kernel would end the process.
    """
    needed, room = call_bytes(ours.steps["train"], arguments=True), roofline.available_bytes()
    if jax.default_backend() == "cpu" and needed and room and needed > 0.9 * room:
        raise RuntimeError(
            f"RESOURCE_EXHAUSTED: the training step needs {needed:,} bytes, {room:,} are free"
        )


OURS = ("", "", "")  # peer, tuning, variant


def in_turns(
    ours: Compiled, peers: Sequence[Peer], kind: str, *, steps: int | None, rounds: int
) -> tuple[dict[Any, dict[str, Any]], int]:
    """({(peer, tuning, variant): timing}, steps of a block) of us and of all variants of all
    peers.
    """
    timers: dict[Any, Timer] = {OURS: lambda n: ours.time(kind, n)}
    processes: dict[Any, int] = {OURS: os.getpid()}
    for peer in peers:
        for variant in peer.variants[kind]:
            name = (peer.name, peer.tuning, variant)
            timers[name] = lambda n, peer=peer, variant=variant: peer.time(kind, variant, n)
            processes[name] = peer.pid
    block = steps or fitting_steps(timers[OURS])
    for timer in timers.values():
        timer(2)  # compile and warm up
    blocks = alternate(
        timers,
        steps=block,
        rounds=rounds,
        watch=lambda name, run: load.watched(run, pid=processes[name]),
    )
    size = ours.experiment.batch_size
    return {name: timing(found, batch_size=size) for name, found in blocks.items()}, block


def beside(name: str, taken: dict[Any, dict[str, Any]], peers: Sequence[Peer]) -> dict[str, Any]:
    """We beside the processes of one peer: `compare` with the best variant of all, the same for
    each tuning alone, and all "variants".
    """
    of_tuning = {
        peer.tuning: {
            f"{variant} ({tuning})": found
            for (of, tuning, variant), found in taken.items()
            if (of, tuning) == (name, peer.tuning)
        }
        for peer in peers
    }
    every = {variant: found for group in of_tuning.values() for variant, found in group.items()}
    return {
        **compare(taken[OURS], every),
        "tunings": {tuning: compare(taken[OURS], group) for tuning, group in of_tuning.items()},
        "variants": every,
    }
