"""One subject after another, at several dtypes and batch sizes, beside its peers."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcnn.bench import measure, roofline
from jaxcnn.bench.definitions import Network, network_of
from jaxcnn.bench.process import Peer, optimizer_of
from jaxcnn.bench.subjects import Subject
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import model_inputs, prepare
from jaxcnn.errors import ConfigError
from jaxcnn.ops.convolution import current_formulation
from jaxcnn.runs import environment
from jaxcnn.runs.check import abstract_state
from jaxcnn.tasks.classification import Classification

# seconds; a sweep of batch sizes ends there, too: larger ones would tell nothing new
SLOWEST_STEP = 10.0


def results(
    subjects: Sequence[Subject],
    peers: Sequence[Peer],
    *,
    dtypes: Sequence[str] = (),
    batch_size: str | None = None,
    torch_compile: bool = False,
    steps: int | None = None,
    rounds: int = 7,
    trace: Path | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> Iterator[dict[str, Any]]:
    """One result after another: subjects, then dtypes, then batch sizes (see `batch_sizes`). One
    that finds too little memory has "error" in place of numbers. A trace of each lies in a folder
    of its own in `trace`.
    """
    where = {"environment": surroundings()}
    names = dict.fromkeys(peer.name for peer in peers)
    # before minutes are spent
    networks = [{name: counterpart(subject, name) for name in names} for subject in subjects]
    peaks: dict[str, dict[str, Any]] = {}
    for subject, network in zip(subjects, networks, strict=True):
        for dtype in dtypes or (subject.experiment.compute_dtype,):
            if dtype not in peaks:
                peaks[dtype] = roofline.measure_peak(dtype)
            for size in batch_sizes(batch_size, subject.experiment):
                e = dataclasses.replace(subject.experiment, batch_size=size, compute_dtype=dtype)
                head = {
                    "name": subject.name,
                    "model": type(e.model).__name__,
                    "dtype": dtype,
                    "batch_size": size,
                    "dropped": subject.dropped,
                    "synthetic": subject.synthetic,
                    "peak": peaks[dtype],
                }
                try:
                    for peer in peers:
                        open_peer(peer, e, network[peer.name], compile=torch_compile)
                    result = measure.measure(
                        e,
                        source=subject.source(),
                        peak=peaks[dtype],
                        peers=peers,
                        steps=steps,
                        rounds=rounds,
                        trace=trace and trace / f"{Path(subject.name).stem}-{dtype}-{size}",
                    )
                except (RuntimeError, MemoryError) as error:
                    if not roofline.out_of_memory(error):
                        raise
                    yield {**head, "error": f"out of memory: {str(error).splitlines()[0]}", **where}
                    break
                yield {**head, **result, **where}
                if batch_size == "auto" and result["train"]["ms_per_step"] > SLOWEST_STEP * 1e3:
                    say(f"the sweep ends: a step takes longer than {SLOWEST_STEP:g} s")
                    break


def surroundings() -> dict[str, Any]:
    """What the times depend on."""
    return environment.describe() | {"convolution": current_formulation()}


def batch_sizes(text: str | None, e: Experiment) -> Iterator[int]:
    """The batch sizes of a text such as "32,64", of "auto" (8, 16, …), or of the experiment.

    Smallest first, so that a peak of memory belongs to the last.
    """
    if text == "auto":
        yield from (8 << i for i in range(40))
    elif text:
        yield from sorted({int(part) for part in text.split(",")})
    else:
        yield e.batch_size


def counterpart(subject: Subject, peer: str) -> Network:
    """The subject's network in a peer. Errors: those of `network_of`, and ConfigError for a task,
    an optimizer, an objective or a program that peers lack.
    """
    e = subject.experiment
    made = {"objective": e.objective, "program": e.program}
    own = [field for field, value in made.items() if value is not None]
    if own:  # the times of two different steps would be compared
        raise ConfigError(
            f"--peer {peer}: the experiment has its own {own[0]}, peers make the plain step of its "
            f"task's loss alone; bench it without --peer, or with {own[0]}=None"
        )
    if peer == "keras" and not isinstance(e.task, Classification):
        raise ConfigError(
            f"--peer keras: {subject.name} is no classification; Keras is compared in that alone"
        )
    if not isinstance(e.task, Classification | measure.SquaredOutputs):
        raise ConfigError(
            f"--peer: the task {type(e.task).__name__} has no counterpart; there is one for "
            "Classification"
        )
    optimizer_of(e)
    return network_of(e.model, peer)


def open_peer(peer: Peer, e: Experiment, network: Network, *, compile: bool = False) -> None:
    """Build the experiment's network in a peer. Errors: ConfigError if it came out with another
    number of parameters.
    """
    batch = {
        name: jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for name, s in e.data.spec().items()
    }
    (image,) = jax.eval_shape(lambda b: model_inputs(e, prepare(e, b)), batch)
    peer.open(
        e,
        network,
        image.shape[1:],
        compile=compile,
        device="cpu" if jax.default_backend() == "cpu" else "gpu",
    )
    params = sum(x.size for x in jax.tree.leaves(abstract_state(e).params))
    if peer.params != params:
        raise ConfigError(
            f"--peer {peer.name}: its network ({peer.facts['definition']}) has {peer.params:,} "
            f"parameters, ours {params:,}: they are not the same network"
        )
