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
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.bench import roofline
from jaxcnn.core import transforms
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import model_inputs, prepare
from jaxcnn.core.program import make_program
from jaxcnn.data.dataset import Source
from jaxcnn.inspect.summary import summarize_layers, total_macs
from jaxcnn.runs.cost import compiled_bytes
from jaxcnn.runs.feed import batches, pieces
from jaxcnn.runs.profiling import tracing
from jaxcnn.tasks.task import BaseTask

KINDS = ("train", "inference")
# a block of steps is made about so long, many times what a clock or a dispatch can err by
BLOCK_SECONDS = 0.5
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
    """The training and the inference step of an experiment, compiled for one device, with a state
    and a batch to run them on.

    Called `time(kind, steps)`, kind "train" or "inference", it runs a block and returns seconds.
    The state is donated from step to step.
    """

    def __init__(self, e: Experiment, source: Source):
        # the schedule never ends while we measure
        program = transforms.compile(make_program(e, steps=1_000_000))
        self.experiment, self.source = e, source
        self.batch = jax.device_put(source.take(np.arange(e.batch_size) % len(source)))
        self.state = program.init(jax.random.key(e.seed))
        infer = jax.jit(lambda state, batch: program.output_step(state, batch)[0])
        jax.block_until_ready((self.state, self.batch))
        self.steps, self.compile_seconds = {}, {}
        for kind, step in zip(KINDS, (program.train_step, infer), strict=True):
            self.steps[kind], self.compile_seconds[kind] = compile_step(
                step, self.state, self.batch
            )

    def time(self, kind: str, steps: int) -> float:
        """Seconds of a block of so many steps on one batch that lies on the device."""
        step, batch, outputs = self.steps[kind], self.batch, None
        start = time.perf_counter()
        for _ in range(steps):
            if kind == "train":
                self.state, outputs = step(self.state, batch)
            else:
                outputs = step(self.state, batch)
        jax.block_until_ready((self.state, outputs))
        return time.perf_counter() - start

    def data_stall_share(self, steps: int) -> float:
        """The share of a short real training loop that is spent waiting for the next batch, in [0,
        1].

        The device is idle when a batch is asked for, so this is the most that feeding can cost: in
        a run it overlaps with the steps.
        """
        e, waited = self.experiment, 0.0
        single = pieces(0, steps + 1, size=1, intervals=())
        feed = (
            batch for _, batch in batches(self.source, single, seed=e.seed, batch_size=e.batch_size)
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

    def macs(self) -> int:
        """Multiply-accumulates of one example's forward pass."""
        inputs = jax.eval_shape(
            lambda batch: model_inputs(self.experiment, prepare(self.experiment, batch)), self.batch
        )
        return total_macs(summarize_layers(self.experiment.model, inputs))


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
    cache = "hit" if hits else "miss" if jax.config.jax_compilation_cache_dir else "off"  # pyright: ignore[reportAttributeAccessIssue]
    seconds = (b - a for a, b in itertools.pairwise(times))
    return compiled, {
        **dict(zip(("trace", "lower", "compile"), seconds, strict=True)),
        "cache": cache,
    }


# ---- timing --------------------------------------------------------------------------------------


def alternate(
    timers: dict[Any, Callable[[int], float]], *, steps: int, rounds: int
) -> dict[Any, list[float]]:
    """Seconds a step of each timer (a function of a number of steps that returns the seconds of
    that block), one entry a round.

    One after another in every round; the order is turned round in every second one.
    """
    seconds: dict[Any, list[float]] = {name: [] for name in timers}
    for index in range(rounds):
        for name in list(timers)[:: -1 if index % 2 else 1]:
            seconds[name].append(timers[name](steps) / steps)
    return seconds


def fitting_steps(timer: Callable[[int], float], *, block_seconds: float = BLOCK_SECONDS) -> int:
    """Warm up a timer, and say how many of its steps last about `block_seconds`: 1 to 1,000."""
    timer(2)
    return max(1, min(1000, math.ceil(2 * block_seconds / max(timer(2), 1e-6))))


def timing(seconds: list[float], *, batch_size: int) -> dict[str, Any]:
    """{"images_per_second", "ms_per_step" (median), "ms_quartiles" [first, third], "rounds"} from
    seconds a step.
    """
    median = statistics.median(seconds)
    return {
        "images_per_second": batch_size / median,
        "ms_per_step": median * 1e3,
        "ms_quartiles": [float(q) * 1e3 for q in np.percentile(seconds, (25, 75))],
        "rounds": len(seconds),
    }


def compare(ours: float, variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Our ms a step against the best variant of a peer: {"ms_per_step", "variant", "ratio" (ours /
    theirs), "variants"}.
    """
    best = min(variants, key=lambda name: variants[name]["ms_per_step"])
    theirs = variants[best]["ms_per_step"]
    return {"ms_per_step": theirs, "variant": best, "ratio": ours / theirs, "variants": variants}


# ---- all of it -----------------------------------------------------------------------------------


def measure(
    e: Experiment,
    *,
    source: Source,
    peak: dict[str, float],
    peers: dict[str, Any] | None = None,
    steps: int | None = None,
    rounds: int = 7,
    trace: Path | None = None,
) -> dict[str, Any]:
    """Throughput, compilation, memory, roofline, data stall and the comparison with peers of one
    experiment as it is, on one device.

    peers: {name: an open jaxcnn.bench.process.Peer}; steps: of a block (default: as many as last
        half a second); trace: a folder for a trace of some steps, made after they were timed.
    Errors: RuntimeError with RESOURCE_EXHAUSTED where memory does not suffice.
    """
    ours = Compiled(e, source)
    needed, room = compiled_bytes(ours.steps["train"]), roofline.available_bytes()
    on_host = jax.default_backend() == "cpu"  # where the kernel would kill us
    if on_host and needed and room and needed > 0.9 * room:
        raise RuntimeError(
            f"RESOURCE_EXHAUSTED: the training step needs {needed:,} bytes, {room:,} are free"
        )
    macs, peers = ours.macs(), peers or {}
    result: dict[str, Any] = {
        "params": sum(x.size for x in jax.tree.leaves(ours.state.params)),
        "macs": macs,
    }
    result["compile_seconds"] = sum(
        ours.compile_seconds["train"][part] for part in ("trace", "lower", "compile")
    )
    result["compile"] = ours.compile_seconds
    compared: dict[str, dict] = {
        name: {"params": peer.params, "version": peer.version, "device": peer.device}
        for name, peer in peers.items()
    }
    for kind in KINDS:
        timers: dict[Any, Callable[[int], float]] = {"": lambda n, kind=kind: ours.time(kind, n)}
        for name, peer in peers.items():
            for variant in peer.variants:
                timers[name, variant] = lambda n, kind=kind, peer=peer, variant=variant: peer.time(
                    kind, variant, n
                )
        block = steps or fitting_steps(timers[""])
        for timer in timers.values():
            timer(2)  # compile and warm up
        seconds = alternate(timers, steps=block, rounds=rounds)
        taken = {name: timing(times, batch_size=e.batch_size) for name, times in seconds.items()}
        place = roofline.position(
            roofline.flop_count(macs, e.batch_size, kind),
            taken[""]["ms_per_step"] / 1e3,
            roofline.bytes_accessed(ours.steps[kind]),
            peak,
        )
        result[kind] = {**taken[""], "steps": block, **place}
        for name, peer in peers.items():
            comparison = compare(
                taken[""]["ms_per_step"],
                {variant: taken[name, variant] for variant in peer.variants},
            )
            compared[name].update(comparison if kind == "train" else {kind: comparison})
    if trace is not None:
        ours.trace(trace)
    result["data_stall_share"] = ours.data_stall_share(min(50, result["train"]["steps"] + 4))
    result["memory"] = roofline.memory(ours.steps)
    result["diverged"] = not bool(ours.state.live)
    return {**result, "peers": compared}
