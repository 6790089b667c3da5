"""Trackers: places outside a run's folder where its numbers are kept beside those of other runs.

A logger of a tracker has two methods, `log` and `close`. `Tracker` is the observer that opens one
for each run (of a sweep: for each replica, in one group), tells it each record once however often
the run is gone on with, and closes it with the summary. Weights & Biases, MLflow and trackio are in
jaxcnn.runs.trackers; one's own is a function of a `Tracked` that returns such a logger:

    jaxcnn.train(e, observe=[jaxcnn.track(lambda run: MyLogger(run.name, run.config))])

Which run it is elsewhere is kept in the run's track.json, and up to which step it was told; never
an address or a key.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxcnn.core.rendering import Json, fields
from jaxcnn.errors import CheckpointError
from jaxcnn.runs.events import Event, numbers_of
from jaxcnn.runs.records import Record, read_history, read_run, read_summary
from jaxcnn.runs.rundir import write_json

FILE = "track.json"  # within the run's folder


class Logger(Protocol):
    """Takes the numbers of one run. What it raises ends the tracking, never the training."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Finite numbers by name, such as "train/loss", after so many updates. Steps never
        decrease; one step may come twice, with other names.
        """
        ...

    def close(self, summary: Mapping[str, Json]) -> None:
        """The process leaves the run. summary: numbers, words and truth values by name:
        "completed", "verdict", "step", "seconds", "eval/accuracy", "test/accuracy", …
        """
        ...


class Tracked(NamedTuple):
    """What a logger is opened for.

    id: unique, and the same whenever the run is gone on with. resumed: the tracker was told of it
    before. name, project, group: for people; group is a sweep's, None of a solo run. config:
    {dotted path: value} of the experiment's fields (among them "seed"), and of a replica "replica".
    """

    folder: Path
    id: str
    resumed: bool
    name: str
    project: str
    group: str | None
    config: dict[str, Json]


Open = Callable[[Tracked], Logger]


class Tracker:
    """An observer that tells a tracker. `open` is called at the first record of a run.

    A run that was trained in part before it was tracked tells its earlier records first.
    """

    def __init__(self, open: Open, *, name: str):
        self.name = name
        self._open = open
        self._logs: dict[Path, _Log] = {}

    def __call__(self, event: Event) -> None:
        folder = event.folder
        if folder is None:
            return
        if event.kind in ("train", "eval"):
            if folder not in self._logs:
                self._logs[folder] = log = _Log(folder, self.name, self._open)
                for record in read_history(folder / "metrics.jsonl")[0]:
                    log.tell(record)
            self._logs[folder].tell(event.record)
        left = event.kind == "end" or str(event.record.get("why", "")).startswith("dropped")
        if left and (log := self._logs.pop(folder, None)) is not None:
            log.logger.close(_summary(folder, event))


class _Log:
    """A logger, and what it was told of each kind of record, as track.json has it."""

    def __init__(self, folder: Path, name: str, open: Open):
        self._path, self._name = folder / FILE, name
        record = read_run(folder)
        kept = self._read().get(name, {})
        self._id = str(kept.get("id") or record.get("id") or secrets.token_hex(16))
        self._logged: dict[str, int] = dict(kept.get("logged", {}))
        self.logger = open(_tracked(folder, record, id=self._id, resumed=bool(self._logged)))

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self._path}: cannot be read ({error}); it keeps the run from being logged "
                "twice: put it back, or remove it to begin a new tracked run"
            ) from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{self._path}: was edited or damaged; remove it")
        return content

    def tell(self, record: Record) -> None:
        """Log a record, unless it was; what a killed process was about to log is not logged again,
        so that nothing is there twice.
        """
        kind, step = record["kind"], record["step"]
        if kind not in ("train", "eval") or step <= self._logged.get(kind, -1):
            return
        self._logged[kind] = step
        content = self._read() | {self._name: {"id": self._id, "logged": self._logged}}
        write_json(self._path, content)
        self.logger.log(step, numbers_of(record))


def _tracked(folder: Path, record: Record, *, id: str, resumed: bool) -> Tracked:
    config: dict[str, Json] = dict(fields(record["rendered"]))
    group, name = None, folder.name
    if "replica" in record:  # SWEEP/replicas/<i>
        group = folder.parent.parent.name
        name = f"{group}-{record['replica']}"
        config |= {"replica": record["replica"], **record.get("point", {})}
    return Tracked(folder, id, resumed, name, record["experiment"], group, config)


def _summary(folder: Path, event: Event) -> dict[str, Json]:
    """summary.json of the run as it ends here, flat; lists (a confusion matrix) are left out."""
    if event.kind == "stop":  # it leaves the others at a rung
        return {"completed": True, "verdict": event.record["why"], "step": event.step}
    summary = read_summary(folder)
    if summary is None:  # it ends in an error
        return {"completed": False, "verdict": "not finished", "step": event.step}
    flat: dict[str, Json] = {}
    for name, value in summary.items():
        inside = value.items() if isinstance(value, dict) else ()
        flat |= {name: value, **{f"{name}/{key}": item for key, item in inside}}
    return {k: v for k, v in flat.items() if isinstance(v, bool | int | float | str)}
