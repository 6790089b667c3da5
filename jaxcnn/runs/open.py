"""A run in the hand: `open(folder)` gives its experiment, state and history, and evaluates,
predicts and exports, wherever the folder lies and whether its data are still there or not.
"""

import dataclasses
import functools
import html
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.core.protocols import Tree
from jaxcnn.core.rendering import render
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.recorded import Recorded, check_same_kind, no_longer_those
from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.runs import code, evaluation, keeping, published
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.events import Record
from jaxcnn.runs.explain import Explainer
from jaxcnn.runs.formats import export_as
from jaxcnn.runs.predict import Inputs, Predictor, Row
from jaxcnn.runs.predict import predict as predict_with
from jaxcnn.runs.question import Question
from jaxcnn.runs.records import read_run, read_summary
from jaxcnn.runs.rundir import replica_folder
from jaxcnn.runs.sweep import as_point, at
from jaxcnn.runs.together import Replica, check_one_model, check_split
from jaxcnn.runs.writers import History
from jaxcnn.tasks.task import Metrics, Task


class Run:
    """A run directory. Nothing is read before it is asked for, and nothing is changed.

    `checkpoint`: "last" or "best". Of a sweep `replicas` are the runs; the sweep itself has a
    summary, and evaluates and predicts as an ensemble of those trained to the end.
    """

    def __init__(
        self,
        folder: Path | str,
        experiment: Experiment | None = None,
        *,
        checkpoint: str = "last",
    ):
        if checkpoint not in ("last", "best"):
            raise ConfigError(f"checkpoint={checkpoint!r}: must be 'last' or 'best'")
        self.folder = Path(folder).absolute()
        self.checkpoint = checkpoint
        self.record = read_run(self.folder)
        self._given = experiment
        self._told: set[str] = set()

    @staticmethod
    def of(run: "Run | Path | str") -> "Run":
        """A run, or the run in a folder."""
        return run if isinstance(run, Run) else Run(run)

    @functools.cached_property
    def experiment(self) -> Experiment:
        """Errors: ConfigError where it cannot be made again, see jaxcnn.runs.code."""
        for text in keeping.changed(self.folder, self.record, given=self._given is not None):
            _warn(f"{self.folder}: {text}, since the run began; its results may be others")
        if self._given is None:
            return code.reopen(self.folder, self.record)
        rendered = render(self._given)
        if changed := code.differences(self.record["rendered"], rendered):
            raise ConfigError(
                f"{self.folder}: is a run of another experiment: {'; '.join(changed[:5])}"
            )
        return self._given

    @property
    def data(self) -> Recorded:
        """What was recorded of the training data: shapes, class names, sizes."""
        return Recorded.from_json(self.record["data"])

    @property
    def replicas(self) -> list["Run"]:
        """The runs of a sweep, each whole in itself; of a solo run, itself."""
        if not self.is_sweep:
            return [self]
        numbers = range(len(self.record["points"]))
        there = [i for i in numbers if (replica_folder(self.folder, i) / "run.json").is_file()]
        return [self.replica(i) for i in there]

    def replica(self, index: int) -> "Run":
        """One replica of a sweep. Errors: ConfigError for a run without it."""
        if not self.is_sweep:
            raise ConfigError(f"replica={index}: {self.folder} is a single run, not a sweep")
        points = self.record["points"]
        if not 0 <= index < len(points):
            raise ConfigError(f"replica={index}: {self.folder} has replicas 0 to {len(points) - 1}")
        given = None if self._given is None else at(self._given, as_point(points[index]))
        run = Run(replica_folder(self.folder, index), given, checkpoint=self.checkpoint)
        if (found := run.record.get("replica")) != index:
            raise CheckpointError(f"{run.folder}: holds replica {found}; put it back where it was")
        return run

    @property
    def is_sweep(self) -> bool:
        """Whether it has several replicas."""
        return "points" in self.record

    @property
    def summary(self) -> Record:
        """What came out: summary.json; {} before the end."""
        return read_summary(self.folder) or {}

    @property
    def history(self) -> list[Record]:
        """The records of metrics.jsonl in the order of steps: kind, step, loss, metrics, …"""
        history = History(self.folder / "metrics.jsonl")
        for fault in history.faults:
            if fault not in self._told:
                _warn(f"{fault}; it is left out")
        self._told.update(history.faults)
        return history.records

    @property
    def metrics(self) -> Metrics | None:
        """The last evaluation on validation data."""
        evaluations = [r for r in self.history if r["kind"] == "eval"]
        return evaluations[-1]["metrics"] if evaluations else None

    @property
    def validation(self) -> Record | None:
        """The evaluation of the checkpoint that was taken, on validation data; of one that was
        saved between evaluations, the one before it. None where there is none.
        """
        evaluations = [r for r in self.history if r["kind"] == "eval"]
        before = [record for record in evaluations if record["step"] <= self.step]
        return max(before, key=lambda record: record["step"], default=None)

    @property
    def total_steps(self) -> int | None:
        """The updates that it was to make; None where that depends on data that are gone."""
        return self.experiment.total_steps(self.data.size("train"))

    @property
    def checkpoints(self) -> Checkpoints:
        """Its checkpoints as files."""
        return Checkpoints(self.folder / "checkpoints", self.record.get("id"))

    @functools.cached_property
    def state(self) -> Tree:
        """The state of the checkpoint. Of a sweep the tuple of its replicas' states, an ensemble.

        Errors: CheckpointError where there is none, or none that can be read.
        """
        if self.is_sweep:
            return tuple(run.state for run in self.trained())
        e = self.standalone()
        if "published" in self.record:
            return published.read_state(e, self.folder, self.record)
        template = jax.eval_shape(make_program(e, steps=1).init, jax.random.key(e.seed))
        found = self.checkpoints.restore(
            template, kind=self.checkpoint, set_aside=False, warn=_warn
        )
        if found is None:
            raise CheckpointError(
                f"{self.folder}: has no {self.checkpoint!r} checkpoint yet; go on with "
                f"`train --resume {self.folder}`"
            )
        return found[0]

    @property
    def step(self) -> int:
        """The updates that the state has seen."""
        return int(self.state.step)

    def standalone(self) -> Experiment:
        """The experiment with what was recorded of its data, which need not be there."""
        run = self.trained()[0] if self.is_sweep else self
        return dataclasses.replace(run.experiment, data=run.data)

    def trained(self) -> list["Run"]:
        """The replicas of a sweep that were trained to the end."""
        done = [run for run in self.replicas if ended_well(run.summary)]
        if not done:
            raise ConfigError(f"{self.folder}: no replica was trained to the end")
        check_one_model(self.folder, _replicas(done))
        return done

    def evaluate(
        self, split: str = "eval", *, data: Dataset | None = None, tta: str | None = None
    ) -> Metrics:
        """Exact metrics on a split of the run's data, or of other `data` of the same kind.

        Decisions such as a threshold are those of the checkpoint's own validation. A warning says
        where they were taken on the very split that is scored, or the run's data have changed.
        tta: "flip" or "crops": outputs for several views of each picture, joined (`core.views`).
        Errors: DataError for data that are gone or of another kind; ConfigError from `views_of`.
        """
        e = self.trained()[0].experiment if self.is_sweep else self.experiment
        if self.is_sweep and data is None:
            check_split(self.folder, _replicas(self.trained()), split)
        if data is not None:
            check_same_kind(self.data, data)
            e = dataclasses.replace(e, data=data)
        elif text := no_longer_those(self.record["data"], e.data):
            _warn(f"{self.folder}: {text}")
        decided = self.decided(e)
        if data is None and split == "eval" and (found := _decisions(e.task, decided.task)):
            _warn(
                f"{found} was chosen on this very split, so what depends on it is no result on "
                "held-out data; score another: --split test, or --data"
            )
        return evaluation.evaluate_split(decided, self.state, split, tta=tta)

    def predict(self, inputs: Inputs, *, batch_size: int = 64, tta: str | None = None) -> list[Row]:
        """What the model says of each input, as the task describes it: {"label", "name",
        "probability", "top"}, {"objects"}, {"points"}, …; of files also {"path"}, and {"path",
        "error"} for one that cannot be read.

        inputs: paths of pictures (files, folders, globs), or an array of images [N, H, W, C], uint8
        or float in [0, 1], or {name: array} of all inputs of a model that takes several. tta: see
        `evaluate`.
        """
        return predict_with(self.predictor(batch_size=batch_size, tta=tta), inputs)

    def predictor(self, *, batch_size: int = 64, tta: str | None = None) -> Predictor:
        """The model, compiled once, for inputs that come one after another. tta: see `evaluate`."""
        return Predictor(
            self.decided(self.standalone()), self.state, batch_size=batch_size, tta=tta
        )

    def explain(self, images: np.ndarray, *, method: str = "gradcam", **asked: Any) -> np.ndarray:
        """Maps [N, H, W] float32 of what in images [N, H, W, C] (uint8, or float in [0, 1], in the
        size of training) speaks for a class. asked: `target` (a class by name or number; default:
        the predicted one), `layer`; see `jaxcnn.runs.question.Question`.
        """
        return self.explainer(Question(method, **asked)).arrays(images)

    def explainer(self, question: Question, *, batch_size: int = 16) -> Explainer:
        """The model, asked one question, compiled once. Errors: ConfigError for a sweep."""
        if self.is_sweep:
            raise ConfigError(f"{self.folder} is a sweep: explain one of its .replicas")
        return Explainer(self.standalone(), self.state, question, batch_size=batch_size)

    def export(
        self, path: Path | str, *, format: str = "stablehlo", int8: int = 0, **asked: Any
    ) -> Record:
        """Write the model as one file, for any number of rows; what its inputs and outputs are.

        format: "stablehlo", for JAX alone, "onnx" or "safetensors"; asked: see `export_as`.
        """
        run = self.trained()[0] if self.is_sweep else self
        e = run.experiment if int8 else self.standalone()  # 8 bits take the data themselves
        asked |= {"format": format, "int8": int8, "label_names": self.data.label_names}
        return export_as(self.decided(e), self.state, Path(path), **asked)

    def decided(self, e: Experiment) -> Experiment:
        """`e` with the task's decisions (a threshold, …) as the checkpoint's own validation found
        them; with those of the experiment, of an ensemble, which has no validation.
        """
        if self.is_sweep:
            records = [run.validation for run in self.trained()]
            tasks = [e.task.calibrate(record["metrics"]) for record in records if record]
            if found := [text for task in tasks if (text := _decisions(e.task, task))]:
                own = _decisions(tasks[0], e.task)
                _warn(
                    f"the replicas by themselves would take {', '.join(found)}; an ensemble has no "
                    f"validation of its own, and keeps the experiment's {own}"
                )
            return e
        record = self.validation
        if record is None:
            return e
        task = e.task.calibrate(record["metrics"])
        if record["step"] != self.step and (found := _decisions(e.task, task)):
            _warn(
                f"{found} is that of the evaluation at step {record['step']}; the checkpoint of "
                f"step {self.step} was not evaluated"
            )
        return dataclasses.replace(e, task=task)

    def __repr__(self) -> str:
        name = self.record.get("experiment", "?")
        shown = ", ".join(f"{k}={v:.4g}" for k, v in self._headline().items())
        return f"Run({str(self.folder)!r}, {name}{', ' + shown if shown else ''})"

    def _repr_html_(self) -> str:
        """A short table for notebooks."""
        rows = {"experiment": self.record.get("experiment", "?"), "folder": self.folder}
        rows |= {k: f"{v:.4g}" for k, v in self._headline().items()}
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(str(k))}</th>"
            f"<td style='text-align:left'>{html.escape(str(v))}</td></tr>"
            for k, v in rows.items()
        )
        return f"<table>{cells}</table>"

    def _headline(self) -> dict[str, float]:
        """A few numbers of the summary, or of the last evaluation."""
        summary = self.summary
        metrics = summary.get("eval") or {}
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, (int, float))}
        first = dict(list(numbers.items())[:2])
        return ({"step": summary["step"]} if "step" in summary else {}) | first


def open(
    folder: Path | str,
    experiment: Experiment | None = None,
    *,
    replica: int | None = None,
    checkpoint: str = "last",
) -> Run:
    """The run in a directory. `experiment`: for a run that was made from what Python cannot import
    again (a notebook's cells); it must be the same. `replica`: one of a sweep.

    Errors: ConfigError for a folder that is no run.
    """
    run = Run(folder, experiment, checkpoint=checkpoint)
    return run if replica is None else run.replica(replica)


def _decisions(before: Task, after: Task) -> str:
    """The fields of a task that a validation has changed: "threshold=0.31"; "" for none."""
    fields = dataclasses.fields(after) if dataclasses.is_dataclass(after) else ()
    pairs = [(f.name, repr(getattr(before, f.name)), repr(getattr(after, f.name))) for f in fields]
    return ", ".join(f"{name}={new}" for name, old, new in pairs if old != new)


def _replicas(runs: list[Run]) -> list[Replica]:
    return [Replica(run.folder, run.record, run.experiment) for run in runs]


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def ended_well(summary: Record) -> bool:
    """Whether a replica was trained to its end, or stopped early as it was asked to."""
    return summary.get("verdict", "").split(" at ")[0] in ("completed", "stopped early")


def evaluate(run: Run | Path | str, split: str = "eval", **options: Any) -> Metrics:
    """Metrics of a run: `open(run).evaluate(split, …)`."""
    return Run.of(run).evaluate(split, **options)
