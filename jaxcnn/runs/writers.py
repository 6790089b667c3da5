"""What a run tells: a history on disk (JSON lines), a console (progress bar or plain lines). Each
is an observer (jaxcnn.runs.events).
"""

import contextlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from jaxcnn.core.checks import OF_DESCENT, OF_RECORDS
from jaxcnn.core.rendering import Json
from jaxcnn.errors import ResourceError
from jaxcnn.runs.events import Event, Record
from jaxcnn.runs.records import KINDS, read_history
from jaxcnn.runs.terminal import ESCAPED
from jaxcnn.weights.files import write_atomically

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SHOWN = 3  # numbers of a training record on the console
SHOWN_METRICS = 6  # and of an evaluation


class History:
    """`metrics.jsonl`: one JSON object a line, in the order of steps, each step once however often
    the run was interrupted.

    Records have "kind" ("train", "eval" or "stop"), "step", "epoch", "seconds" (training time so
    far) and numbers. Where the disk is full they wait in memory for the next `flush`. Lines that
    are no records are left out and named in `faults`; before the file is written anew without them,
    it is kept as metrics.jsonl.damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self.records, self.faults = read_history(path)
        self._unwritten: list[str] = []

    def __call__(self, event: Event) -> None:
        if event.kind in KINDS:
            self.append(event.record)

    def append(self, record: Record) -> None:
        """Add a record; one that cannot be written now is kept for `flush`."""
        self.records.append(record)
        self._unwritten.append(json.dumps(record) + "\n")
        with contextlib.suppress(OSError):  # `flush` tries again, and reports it
            self._write()

    def _write(self) -> None:
        with open(self.path, "a") as file:
            file.write("".join(self._unwritten))
        self._unwritten = []

    def flush(self) -> None:
        """Write what could not be written. Errors: ResourceError."""
        if self._unwritten:  # part of a line may have been written: write all of it anew
            self._rewrite()

    def fsync(self) -> None:
        """Make sure that what was written survives a power cut; another thread may do so while this
        one appends. Errors: ResourceError.
        """
        if not self.path.is_file():
            return
        try:
            with open(self.path, "a") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(
                f"{self.path}: cannot be written ({error.strerror}); free disk space"
            ) from error

    def truncate(self, step: int) -> None:
        """Forget what came after `step`: a resumed run will write it again."""
        self.records = [r for r in self.records if r["step"] <= step]
        self._rewrite()

    def _rewrite(self) -> None:
        if self.faults:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            write_atomically(aside, [self.path.read_bytes()])
            self.faults = []
        write_atomically(self.path, [json.dumps(r).encode() + b"\n" for r in self.records])
        self._unwritten = []

    def seconds(self) -> float:
        """Training time up to the last record."""
        return self.records[-1]["seconds"] if self.records else 0.0

    def evaluations(self) -> list[Record]:
        """The records of kind "eval"."""
        return [r for r in self.records if r["kind"] == "eval"]


class Console:
    """Progress for a person: a rich progress bar on a terminal and in a notebook, one plain line a
    record elsewhere, nothing when quiet. Writes to stderr.

    Of several replicas it shows the means over those in training.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._lost = 0  # lines that nobody could take
        self._replicas: list[int] = [0]
        self._rows: dict[int, Record] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            self._replicas = event.record["replicas"]
            self._start(step=event.step, steps=event.record["steps"])
        elif event.kind == "end":
            self.stop()
        elif event.kind == "stop":
            self._stop(event)
        elif event.kind in ("train", "eval"):
            self._rows[event.replica] = event.record
            if event.replica == self._replicas[-1]:
                show = self._train if event.kind == "train" else self._evaluate
                show(list(self._rows.values()))
                self._rows = {}

    def _stop(self, event: Event) -> None:
        record, several = event.record, len(self._replicas) > 1
        text = f"{record['why']} at step {record['at']}"
        text += f" ({record['where']})" if "where" in record else ""
        if several:
            self.line(f"replica {event.replica} {record['point']}: {text}; the others go on")
            self._replicas = [i for i in self._replicas if i != event.replica]
        elif record["why"] != "diverged":  # which ends a run of one with an error that says so
            self.line(text)

    def _start(self, *, step: int, steps: int, unit: str = "steps") -> None:
        notebook = self.stream is sys.stderr and _is_notebook()
        if self._bar or self.quiet or not (notebook or self.stream.isatty()):
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        done = TextColumn("{task.completed}/{task.total} " + unit)
        columns = (TextColumn("{task.description}"), BarColumn(), done, TimeElapsedColumn())
        # the bar moves the cursor, which `terminal.Screen` does not let happen
        raw = sys.__stderr__ if self.stream is sys.stderr else self.stream
        console = RichConsole() if notebook else RichConsole(file=raw)
        self._bar = Progress(*columns, TextColumn("ETA"), Remaining(), console=console)
        self._task = self._bar.add_task("compiling", total=steps, completed=step)
        self._bar.start()

    def progress(self, done: int, total: int, text: str) -> None:
        """A bar of a task before training, such as the trial of ways; gone when all is done."""
        if self._bar is None:
            self._start(step=done, steps=total, unit="tried")
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, description=text)
            if done == total:
                self.stop()
        elif done < total:
            self.line(text)

    def _train(self, rows: list[Record]) -> None:
        rates = [row["images_per_second"] for row in rows]
        text = f"epoch {rows[0]['epoch']:.2f}"
        own = [name for name in rows[0] if name not in (*OF_RECORDS, *OF_DESCENT)]
        for name in ["loss", *own][:SHOWN]:
            if (value := _mean([row.get(name) for row in rows])) is not None:
                text += f"  {name} {value:.4f}"
        if None not in rates:  # nothing but compiling so far
            text += f"  {sum(rates):,.0f} images/s"
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=rows[0]["step"], description=text)
        else:
            self.line(f"step {rows[0]['step']}  {text}")

    def _evaluate(self, rows: list[Record]) -> None:
        head = f"step {rows[0]['step']}  epoch {rows[0]['epoch']:.2f}  eval"
        if len(rows) > 1:
            head += f" of {len(rows)} replicas, means:"
        numbers = []
        for name in rows[0]["metrics"]:
            if (value := _mean([row["metrics"].get(name) for row in rows])) is not None:
                whole = isinstance(rows[0]["metrics"][name], int) and value == int(value)
                numbers.append(f"{name} {format_number(int(value) if whole else value)}")
        more = "  …" if len(numbers) > SHOWN_METRICS else ""  # metrics.jsonl has them all
        self.line(f"{head}  {'  '.join(numbers[:SHOWN_METRICS])}{more}")

    def line(self, text: str) -> None:
        """One line for the user. Where it cannot be written (a full disk, a pipe whose reader went
        away) training goes on, and the number of lost lines is said as soon as one can be written.
        """
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(
                text.translate(ESCAPED), highlight=False, markup=False, soft_wrap=True
            )
            return
        try:
            if self._lost:
                print(f"({self._lost} lines could not be written)", file=self.stream, flush=True)
                self._lost = 0
            print(text, file=self.stream, flush=True)
        except OSError:
            self._lost += 1

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def _is_notebook() -> bool:
    """Whether rich can show a bar in a notebook, for which it needs ipywidgets."""
    return "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None


def format_number(value: float) -> str:
    """Short text of a metric: integers plainly, fractions with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _mean(values: list[Json]) -> float | None:
    """The mean of the numbers among `values`; None where there is none."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return sum(numbers) / len(numbers) if numbers else None
