"""Steps of a run made again, and compared bit by bit with what was saved."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.errors import CheckpointError, ConfigError, DivergedError, Preempted, ResourceError
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.open import Run
from jaxcnn.runs.rundir import start_of, write_json
from jaxcnn.runs.train import go_on
from jaxcnn.runs.writers import Console
from jaxcnn.weights.files import Arrays
from jaxcnn.weights.identity import read_checkpoint


def verify(
    run: Run | Path | str,
    *,
    experiment: Experiment | None = None,
    steps: int = 1,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a copy of a run from one of its checkpoints to its newest one, and compare the states.

    steps: how many at least are made again: from the newest checkpoint that lies so far back, or
    from the start. `experiment`: as for `open`. The run itself is not changed.
    Returns {"from", "to", "same", "state_sha256" (as recorded), "replayed_sha256", "differs"}: the
    first leaf with other bits in words, None where all are the same.
    Errors: ConfigError for a sweep, whose replicas were trained together, and for a run that has
    nothing to start from; CheckpointError, ResourceError; those of training.
    """
    run = Run.of(run)
    if run.is_sweep or "replica" in run.record:
        raise ConfigError(f"{run.folder}: is (of) a sweep; verify makes steps of single runs again")
    if steps < 1:
        raise ConfigError(f"steps={steps}: make at least 1 again")
    saved = run.checkpoints.steps()
    if not saved:
        raise CheckpointError(f"{run.folder}: has no checkpoint yet, so there is nothing to verify")
    starts = [*saved[1:], *([] if "started_from" in run.record else [0])]
    if not starts:
        raise ConfigError(
            f"{run.folder}: has a single checkpoint, and its start lies in the run that it goes on "
            "from; there is nothing to start from"
        )
    start = next((step for step in starts if saved[0] - step >= steps), starts[-1])
    with tempfile.TemporaryDirectory(prefix="jaxcnn-verify-") as place:
        copy = Path(place) / "run"
        _copy(run, copy, upto=start)
        try:
            go_on(experiment, copy, {}, console=console or Warnings(quiet=True), until=saved[0])
        except (Preempted, DivergedError):  # stopped at that step, or diverges as it did
            if saved[0] not in Checkpoints(copy / "checkpoints").steps():
                raise
        then, old = _read(run, run.folder, saved[0])
        now, new = _read(run, copy, saved[0])
    differs = _first_difference(then, now)
    digests = {"state_sha256": old, "replayed_sha256": new, "same": old == new}
    return {"from": start, "to": saved[0], **digests, "differs": differs}


class Warnings(Console):
    """A console that shows warnings alone: why bits may be others."""

    def line(self, text: str) -> None:
        if text.startswith("warning"):
            print(text, file=self.stream, flush=True)


def _copy(run: Run, copy: Path, *, upto: int) -> None:
    """The run as it was when it had made `upto` steps."""
    try:
        (copy / "checkpoints").mkdir(parents=True)
        shutil.copytree(run.folder / "code", copy / "code")
        shutil.copyfile(run.folder / "metrics.jsonl", copy / "metrics.jsonl")
        for path in run.checkpoints.files():
            if path.suffix != ".damaged" and int(path.stem.rpartition("-")[2]) <= upto:
                shutil.copyfile(path, copy / "checkpoints" / path.name)
    except OSError as error:
        raise ResourceError(f"{run.folder}: cannot be copied to {copy} ({error})") from error
    # relative places of its data begin where they did, as seen from the run, not from the copy
    started = str(start_of(run.folder, run.record))
    write_json(copy / "run.json", {**run.record, "started_in": started})


def _read(run: Run, folder: Path, step: int) -> tuple[Arrays, str]:
    """(arrays, digest of the state) of the checkpoint of a step. Errors: CheckpointError."""
    files = [folder / "checkpoints" / f"{kind}-{step:09d}.safetensors" for kind in ("last", "best")]
    path = next((path for path in files if path.is_file()), files[0])
    arrays, metadata = read_checkpoint(path, run=run.checkpoints.run)
    return arrays, metadata["state_sha256"]


def _first_difference(then: Arrays, now: Arrays) -> str | None:
    for name, old in then.items():
        new = now.get(name)
        if new is None or (new.dtype, new.shape) != (old.dtype, old.shape):
            return f"{name}: {old.dtype}{list(old.shape)} then, another form now"
        if old.tobytes() != new.tobytes():
            pair = old.astype(np.float64), new.astype(np.float64)
            count, most = int((pair[0] != pair[1]).sum()), float(np.abs(pair[0] - pair[1]).max())
            return f"{name}: {count} of {old.size} numbers differ, by up to {most:.3g}"
    return None
