"""TensorBoard: an observer that writes event files through tensorboardX.

Always, where tensorboardX is installed: scalars, the experiment and its code as text, and its
fields as hyperparameters, so that the HPARAMS tab compares the runs below one folder. With
`details`, besides, at each evaluation: histograms of the weights and of what changed in them since
the last one, and the first pictures of the evaluation, as they are and with what the model says.
"""

import importlib.util
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.core import transforms
from jaxcnn.core.batch import kind
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import AnyState, Batch, HasParams, Tree
from jaxcnn.core.rendering import Json, fields
from jaxcnn.data.dataset import Source
from jaxcnn.errors import DependencyError
from jaxcnn.inspect.contact_sheet import arrange, described, pictures, tile
from jaxcnn.runs.evaluation import program_of
from jaxcnn.runs.events import Event, numbers_of
from jaxcnn.runs.records import Record, read_run
from jaxcnn.runs.report.cards import say

FOLDER = "tensorboard"  # within the run's
SHOWN = 8  # pictures
BINS = 50  # of a histogram
MOST_TEXT = 200_000  # characters of a file of code
MOST_VALUE = 250  # of a hyperparameter that is no number


class TensorBoard:
    """Event files in the `tensorboard` folder of each run that it is told of.

    Written in this thread, without tensorboardX's SummaryWriter: its thread dies where the disk is
    full, and whoever hands it more then waits for ever. What raises here ends the board alone.

    details: write histograms and pictures, too. An evaluation then fetches the state, and a
        forward pass of a few examples is compiled once.
    Errors: DependencyError for `details` without tensorboardX; else nothing is written without it.
    """

    def __init__(self, *, details: bool = False):
        self._there = importlib.util.find_spec("tensorboardX") is not None
        if details and not self._there:
            raise DependencyError(
                "TensorBoard with details needs tensorboardX: pip install 'jaxcnn[tensorboard]'"
            )
        self._details = details
        self._started: dict[Path, int] = {}  # the step that a run starts at, by its folder
        self._files: dict[Path, _Files] = {}

    def __call__(self, event: Event) -> None:
        if not self._there or event.folder is None:
            return
        if event.kind == "start":
            self._started[event.folder] = event.step
        elif event.kind in ("train", "eval"):
            files = self._files.get(event.folder) or self._open(event.folder)
            for name, value in numbers_of(event.record).items():
                files.scalar(name, value, step=event.step)
            if event.kind == "eval":
                if self._details:
                    files.details(event)
                files.flush()
        elif event.kind in ("stop", "end") and event.folder in self._files:
            # one that stops may leave the run before its end
            why = event.record.get("why")
            success = why != "diverged" if why or _is_completed(event.folder) else None
            self._files.pop(event.folder).close(event.step, success=success)

    def _open(self, run: Path) -> "_Files":
        """At the first record: a run may be refused before that."""
        after = self._started.pop(run, 0)
        self._files[run] = files = _Files(run, after=after)
        return files


def _is_completed(run: Path) -> bool:
    """Whether the summary, which is written before the end is told, says so."""
    try:
        return json.loads((run / "summary.json").read_bytes())["completed"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False  # the run ends in an error, and has its message


class _Files:
    """One run's event files; a new one each time that the run is gone on with. TensorBoard then
    hides what the process before logged of the steps from `after` on, which are made again.
    """

    def __init__(self, run: Path, *, after: int):
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._make: Any = summary  # of protocol buffers, which have no types
        self._proto: Any = event_pb2
        folder = run / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        before = len([*folder.glob("*tfevents*")])
        # the number keeps two files of one second apart
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{before}")
        self._weights: dict[str, np.ndarray] = {}  # of the last evaluation
        self._viewer: _Viewer | None = None
        # TensorBoard hides nothing at the first of a folder's beginnings, so each file has one
        begin = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._write(after + 1, session_log=begin)
        if not before:
            self._describe(run)

    def _write(self, step: int, **content: object) -> None:
        self._writer.write_event(self._proto.Event(wall_time=time.time(), step=step, **content))

    def _describe(self, run: Path) -> None:
        """The experiment and its code as text, and its fields as hyperparameters."""
        record = read_run(run)
        rows = [*fields(record["rendered"])]
        lines = [f"    {name}: {value}" for name, value in rows]  # four spaces: Markdown's code
        self._write(0, summary=self._make.text("experiment", "\n".join(lines)))
        for name, text in _code_of(run, record):
            shown = "\n".join(f"    {line}" for line in text.splitlines())
            self._write(0, summary=self._make.text(f"code/{name}", shown))
        self._write(0, summary=_session(start=_hyperparameters(rows)))

    def scalar(self, name: str, value: float, *, step: int) -> None:
        """A point of a curve."""
        self._write(step, summary=self._make.scalar(name, value))

    def details(self, event: Event) -> None:
        """Histograms and pictures of an evaluation."""
        state = event.state()
        if isinstance(state, HasParams):
            self._histograms(event.step, state.params)
        if event.experiment is None or event.examples is None or not _has_pictures(event):
            return
        first = self._viewer is None
        self._viewer = self._viewer or _Viewer(event.experiment, event.examples, state)
        true, said = self._viewer.sheets(state)
        if first:
            self._write(event.step, summary=_picture("examples/true", true))
        self._write(event.step, summary=_picture("examples/said", said))

    def _histograms(self, step: int, params: Tree) -> None:
        """Of each array of weights, and of its change since the last evaluation."""
        for name, values in _named(params):
            self._histogram(f"weights/{name}", values, step=step)
            if name in self._weights:
                self._histogram(f"changes/{name}", values - self._weights[name], step=step)
            self._weights[name] = values

    def _histogram(self, name: str, values: np.ndarray, *, step: int) -> None:
        self._write(step, summary=self._make.histogram(name, values, BINS))

    def flush(self) -> None:
        """Hand to the system what was written."""
        self._writer.flush()

    def close(self, step: int, *, success: bool | None) -> None:
        """The last of this process. success: None of a run that is to be gone on with; TensorBoard
        keeps the first end that it reads.
        """
        if success is not None:
            self._write(step, summary=_session(end=success))
        self._writer.close()


class _Viewer:
    """The model of a run on the first pictures of its evaluation, compiled once."""

    def __init__(self, e: Experiment, examples: Source, state: AnyState):
        program = program_of(e, state)

        def look(state: Tree, batch: Batch) -> tuple[Tree, Batch]:
            outputs, batch = program.output_step(state, batch)
            return transforms.task_of(e, state).predict(outputs), batch

        self._e, self._look = e, jax.jit(look)
        count = min(SHOWN, len(examples))
        batch = examples.take(np.arange(count, dtype=np.int32))
        self._batch = {**batch, "mask": np.ones(count, np.float32)}

    def sheets(self, state: AnyState) -> tuple[Any, Any]:
        """(the pictures with what is true of them, with what the model says), Pillow's."""
        names = tuple(self._e.data.label_names)
        said, batch = jax.device_get(self._look(state, self._batch))
        true, drawn = [], []
        for i, pixels in enumerate(pictures(batch)):
            row = jax.tree.map(lambda x, i=i: x[i], said)
            row = self._e.task.describe(row, names=names)
            true.append(tile(pixels, described(batch, i, names=names)))
            drawn.append(tile(pixels, {**row, "text": say(row)} if say(row) else row))
        return arrange(true, columns=4), arrange(drawn, columns=4)


def _has_pictures(event: Event) -> bool:
    spec = event.experiment.data.spec() if event.experiment else {}
    return any(kind(name) == "image" and len(s.shape) >= 3 for name, s in spec.items())


def _named(params: Tree) -> Iterator[tuple[str, np.ndarray]]:
    """(a/b/kernel, float32 [N]) of each array of finite numbers."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(jax.device_get(params))[0]:
        values = np.asarray(leaf, np.float32).reshape(-1)
        if values.size and np.isfinite(values).all():
            yield jax.tree_util.keystr(path, simple=True, separator="/"), values


def _code_of(run: Path, record: Record) -> Iterator[tuple[str, str]]:
    """(name, text) of the files of code that the run keeps, each up to MOST_TEXT characters."""
    kept = record["code"]
    for name in dict.fromkeys(filter(None, (kept["file"], *kept.get("local", {}).values()))):
        path = run / "code" / name
        if path.is_file():
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(MOST_TEXT + 1)
            more = "\n… (cut here)" if len(text) > MOST_TEXT else ""
            yield name, text[:MOST_TEXT] + more


def _hyperparameters(rows: list[tuple[str, Json]]) -> dict[str, float | bool | str]:
    """Numbers and words as they are, lists as words; not what is None."""
    return {
        name: value if isinstance(value, bool | int | float) else str(value)[:MOST_VALUE]
        for name, value in rows
        if value is not None
    }


def _session(*, start: dict[str, float | bool | str] | None = None, end: bool | None = None) -> Any:
    """What the HPARAMS tab reads: that a run begins, with these values, or how it ended.

    No list of columns goes with it: TensorBoard makes one of all runs below its folder, where it
    would else take that of the first for all.
    """
    from tensorboardX.proto import api_pb2, plugin_hparams_pb2, summary_pb2

    api: Any = api_pb2
    plugin: Any = plugin_hparams_pb2
    form: Any = summary_pb2
    content = plugin.HParamsPluginData(version=0)
    if start is not None:
        tag, info = "_hparams_/session_start_info", content.session_start_info
        info.start_time_secs = time.time()
        for name, value in start.items():
            if isinstance(value, str | bool):
                of = "string_value" if isinstance(value, str) else "bool_value"
                setattr(info.hparams[name], of, value)
            else:
                info.hparams[name].number_value = value
    else:
        tag, info = "_hparams_/session_end_info", content.session_end_info
        info.status = api.Status.Value("STATUS_SUCCESS" if end else "STATUS_FAILURE")
        info.end_time_secs = time.time()
    data = form.SummaryMetadata.PluginData(
        plugin_name="hparams", content=content.SerializeToString()
    )
    metadata = form.SummaryMetadata(plugin_data=data)
    return form.Summary(value=[form.Summary.Value(tag=tag, metadata=metadata)])


def _picture(name: str, picture: Any) -> Any:
    """A picture of Pillow as a summary."""
    from tensorboardX.proto import summary_pb2

    form: Any = summary_pb2
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "PNG")
    image = form.Summary.Image(
        height=picture.height,
        width=picture.width,
        colorspace=3,
        encoded_image_string=stream.getvalue(),
    )
    return form.Summary(value=[form.Summary.Value(tag=name, image=image)])
