"""What a run tells: a history on disk (JSON lines), a console (progress bar or plain lines),
TensorBoard where its writer is installed.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from jaxcnn.runs.checkpoint import write_atomically


class History:
    """`metrics.jsonl`: one JSON object a line, in the order of steps, each step once however often
    the run was interrupted.

    Records have "kind" ("train" or "eval"), "step", "epoch", "seconds" (training time so far) and
    numbers.
    """

    def __init__(self, path: Path):
        self.path = path
        self.records: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    self.records.append(json.loads(line))
                except ValueError:
                    break  # a line torn by a crash, and whatever followed it

    def append(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")

    def sync(self) -> None:
        """Make sure that what was appended survives a power cut."""
        if self.path.exists():
            with open(self.path, "a") as file:
                os.fsync(file.fileno())

    def truncate(self, step: int) -> None:
        """Forget what came after `step`: a resumed run will write it again."""
        self.records = [r for r in self.records if r["step"] <= step]
        write_atomically(self.path, [json.dumps(r).encode() + b"\n" for r in self.records])

    def seconds(self) -> float:
        """Training time up to the last record."""
        return self.records[-1]["seconds"] if self.records else 0.0

    def evaluations(self) -> list[dict[str, Any]]:
        return [r for r in self.records if r["kind"] == "eval"]


class Console:
    """Progress for a person: a rich progress bar on a terminal, one plain line a record elsewhere,
    nothing when quiet. Writes to stderr.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.bar = None
        self.task: Any = None

    def start(self, *, step: int, steps: int) -> None:
        if self.quiet or not self.stream.isatty():
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"), TimeElapsedColumn())
        self.bar = Progress(*columns, TextColumn("ETA"), TimeRemainingColumn(), console=RichConsole(file=self.stream))
        self.task = self.bar.add_task("compiling", total=steps, completed=step)
        self.bar.start()

    def train(self, record: dict[str, Any]) -> None:
        text = (
        f"epoch {record['epoch']:.2f}  loss {record['loss']:.4f}  "
        f"{record['images_per_second']:,.0f} images/s"
)
        if self.bar:
            self.bar.update(self.task, completed=record["step"], description=text)
        else:
            self.line(f"step {record['step']}  {text}")

    def evaluate(self, record: dict[str, Any]) -> None:
        numbers = (
        " "
        " "
).join(f"{k} "
       f"{format_number(v)}" for k, v in record["metrics"].items() if isinstance(v, (int, float)))
        self.line(f"step {record['step']}  epoch {record['epoch']:.2f}  eval  {numbers}")

    def line(self, text: str) -> None:
        if self.quiet:
            return
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=self.stream, flush=True)

    def stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


class TensorBoard:
    """Event files in `folder`, through tensorboardX; does nothing where that is not installed (`pip
    install 'jaxcnn[tensorboard]'`).
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, record: dict[str, Any]) -> None:
        if self.writer:
            numbers = record.get("metrics", record)
            for name, value in numbers.items():
                if isinstance(value, (int, float)) and name not in ("step", "epoch", "kind"):
                    self.writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def close(self) -> None:
        if self.writer:
            self.writer.close()


def format_number(value: float) -> str:
    """Short text of a metric: integers plainly, fractions with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
