"""What a run tells: its history, line by line, and what a person reads of it on a console."""

import io
import json
import os
import sys
from types import SimpleNamespace

import pytest

from jaxcnn.errors import ResourceError
from jaxcnn.runs import writers
from jaxcnn.runs.events import Event
from jaxcnn.runs.writers import Console, History, format_number


def record(step, kind="train", **more):
    return {"kind": kind, "step": step, "epoch": step / 8, "seconds": step / 4, **more}


def event(kind, step=1, replica=0, **more):
    if kind in ("train", "eval"):
        more = record(step, kind, **more)
    return Event(kind, step, more, state=lambda: None, replica=replica)


def lines_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_history_keeps_records_of_steps_alone_and_each_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    history = History(path)
    assert (history.records, history.seconds(), history.evaluations()) == ([], 0.0, [])
    history.fsync()  # of nothing yet
    assert not path.exists()
    kept = [event("train", 1, images_per_second=None), event("eval", 2, metrics={"loss": 1.0}),
            Event("stop", 3, record(3, "stop", why="early", at=2), state=lambda: None),
            event("train", 4, images_per_second=3.5)]  # fmt: skip
    for one in (event("start", 0, steps=4, replicas=[0]), *kept, event("save", 4), event("end", 4)):
        history(one)
        assert lines_in(path) == history.records if path.exists() else not history.records
    assert history.records == [one.record for one in kept]
    assert history.seconds() == 1.0
    assert history.evaluations() == [kept[1].record]
    assert History(path).records == history.records
    history.truncate(2)
    assert history.records == lines_in(path) == [one.record for one in kept[:2]]


def test_what_could_not_be_written_waits_for_a_flush(tmp_path):
    path = tmp_path / "later" / "metrics.jsonl"
    history = History(path)
    for step in (1, 2):
        history.append(record(step))
    path.parent.mkdir()
    path.write_text(json.dumps(record(1))[:20])  # as far as a full disk took it
    history.flush()
    assert lines_in(path) == [record(1), record(2)]
    inode = path.stat().st_ino
    history.flush()
    assert path.stat().st_ino == inode, "written anew though nothing waited"
    history.append(record(3))
    assert lines_in(path) == [record(1), record(2), record(3)]


def test_a_damaged_history_is_kept_beside_the_whole_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record(1)) + "\nno record\n" + json.dumps(record(2)) + "\n")
    before = path.read_bytes()
    history = History(path)
    assert len(history.faults) == 1
    history.truncate(9)
    assert lines_in(path) == [record(1), record(2)]
    aside = tmp_path / "metrics.jsonl.damaged"
    assert aside.read_bytes() == before
    history.truncate(1)
    assert aside.read_bytes() == before
    assert History(path).faults == []


def test_a_history_reaches_the_disk_when_asked(tmp_path, monkeypatch):
    history, flushed = History(tmp_path / "metrics.jsonl"), []
    history.append(record(1))
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.fstat(number).st_ino))
    history.fsync()
    assert flushed == [history.path.stat().st_ino]

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"metrics\.jsonl: cannot be written \(No space left"):
        history.fsync()


@pytest.fixture
def console():
    """A console without a terminal; `said()` gives what it wrote since the last time."""
    console = Console(stream=io.StringIO())
    at = [0]

    def said():
        text = console.stream.getvalue()
        start, at[0] = at[0], len(text)
        return text[start:]

    console.said = said
    return console


def trained(step, replica=0, rate=1000.4, **more):
    return event("train", step, replica, images_per_second=rate, **more)


def test_a_training_record_is_a_line_of_three_numbers(console):
    console(trained(4, loss=0.5, grad_norm=9.0, learning_rate=9.0, top=0.25, low=2, more=8.0))
    numbers = "loss 0.5000  top 0.2500  low 2.0000  1,000 images/s"
    assert console.said() == f"step 4  epoch 0.50  {numbers}\n"
    console(trained(5, rate=None, loss=None, top=True))
    assert console.said() == "step 5  epoch 0.62\n"


def test_an_evaluation_is_a_line_of_six_numbers(console):
    metrics = {"loss": 0.5, "count": 1234, "none": None, "flag": True, "list": [1], "a": 1.0}
    console(event("eval", 4, metrics=metrics))
    assert console.said() == "step 4  epoch 0.50  eval  loss 0.5000  count 1,234  a 1.0000\n"
    for count in (6, 7):
        console(event("eval", 4, metrics={f"m{i}": i for i in range(count)}))
        shown = "  ".join(f"m{i} {i}" for i in range(6)) + ("  …" if count > 6 else "")
        assert console.said() == f"step 4  epoch 0.50  eval  {shown}\n"


def test_of_replicas_the_means_are_shown_when_the_last_one_has_come(console):
    console(event("start", 0, steps=8, replicas=[0, 2, 5]))
    console(trained(4, 0, loss=1.0, own=1.0))
    console(trained(4, 2, loss=None))
    assert console.said() == ""
    console(trained(4, 5, loss=2.0, own=4.0))
    assert console.said() == "step 4  epoch 0.50  loss 1.5000  own 2.5000  3,001 images/s\n"
    for replica, count in ((0, 20), (2, 21), (5, 22)):
        console(event("eval", 4, replica, metrics={"count": count, "loss": 0.5, "odd": replica}))
    assert console.said() == (
        "step 4  epoch 0.50  eval of 3 replicas, means:  count 21  loss 0.5000  odd 2.3333\n"
    )
    stop = {"why": "stopped early", "at": 4, "point": {"seed": 7}}
    console(event("stop", 4, 5, **stop))
    assert console.said() == "replica 5 {'seed': 7}: stopped early at step 4; the others go on\n"
    console(trained(5, 0, loss=1.0))
    console(trained(5, 2, loss=3.0))  # now the last one
    assert console.said() == "step 5  epoch 0.62  loss 2.0000  2,001 images/s\n"
    console(event("stop", 5, 0, **{**stop, "why": "diverged", "where": "Conv_0"}))
    assert "diverged at step 4 (Conv_0); the others go on" in console.said()
    console(trained(6, 2, loss=1.0))
    console(event("stop", 6, 2, **stop))
    assert console.said().splitlines()[-1] == "stopped early at step 4"  # there are no others


def test_of_one_run_it_is_said_why_it_stopped_unless_an_error_says_so(console):
    console(event("start", 0, steps=8, replicas=[0]))
    console(event("stop", 4, why="stopped early", at=3))
    assert console.said() == "stopped early at step 3\n"
    console(event("stop", 4, why="diverged", at=3, where="Conv_0"))
    console(event("save", 4))
    console(event("end", 4))
    assert console.said() == ""


def test_progress_without_a_terminal_is_a_line_for_each_part(console):
    for done, text in enumerate(("one", "two", "done")):
        console.progress(done, 2, text)
    assert console.said() == "one\ntwo\n"


def test_a_quiet_console_says_nothing_and_another_writes_to_stderr(capsys):
    quiet = Console(quiet=True)
    quiet.line("a")
    quiet(trained(1, loss=1.0))
    quiet.progress(0, 1, "a")
    assert capsys.readouterr() == ("", "")
    Console().line("a")
    assert capsys.readouterr() == ("", "a\n")


def test_lines_reach_a_reader_as_they_come_and_lost_ones_are_counted():
    raw = io.BytesIO()
    console = Console(stream=io.TextIOWrapper(raw, encoding="utf-8"))
    console.line("a")
    assert raw.getvalue() == b"a\n"

    class Full(io.StringIO):
        full = False

        def write(self, text):
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Full()
    console = Console(stream=stream)
    for text, full in (("a", False), ("b", True), ("c", True), ("d", False), ("e", False)):
        stream.full = full
        console.line(text)
    assert stream.getvalue() == "a\n(2 lines could not be written)\nd\ne\n"


class Terminal(io.StringIO):
    """A stream that is one."""

    def isatty(self):
        return True


def test_a_terminal_has_a_bar(monkeypatch):
    console = Console(stream=Terminal())
    console(event("start", 3, steps=8, replicas=[0]))
    bar = console._bar
    (task,) = bar.tasks
    assert (task.description, task.completed, task.total) == ("compiling", 3, 8)
    assert bar.live.is_started
    assert bar.console.file is console.stream
    assert "{task.total} steps" in [getattr(c, "text_format", "")[-18:] for c in bar.columns]
    console(trained(4, loss=0.5))
    assert (task.completed, task.description) == (4, "epoch 0.50  loss 0.5000  1,000 images/s")
    console(event("start", 0, steps=99, replicas=[0]))
    assert console._bar is bar  # one at a time
    before = len(console.stream.getvalue())
    line = "[red]not red[/red] 123 " + "word " * 60 + "\x1b[2J'a'"
    console.line(line)
    assert line.replace("\x1b", "\\x1b") in console.stream.getvalue()[before:]
    console(event("end", 8))
    assert not bar.live.is_started
    console(trained(9, loss=0.5))
    assert console.stream.getvalue().endswith("step 9  epoch 1.12  loss 0.5000  1,000 images/s\n")


def test_a_task_before_training_has_a_bar_until_it_is_done():
    console = Console(stream=Terminal())
    console.progress(0, 2, "one")
    bar = console._bar
    (task,) = bar.tasks
    assert (task.description, task.completed, task.total) == ("one", 0, 2)
    assert "{task.total} tried" in [getattr(c, "text_format", "")[-18:] for c in bar.columns]
    console.progress(1, 2, "two")
    assert (task.description, task.completed) == ("two", 1)
    console.progress(2, 2, "done")
    assert console._bar is None
    assert not bar.live.is_started
    quiet = Console(quiet=True, stream=Terminal())
    quiet.progress(0, 2, "one")
    assert quiet._bar is None


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("widgets", [False, True])
@pytest.mark.parametrize("own_stream", [False, True])
def test_a_notebook_shows_a_bar_where_it_can(monkeypatch, kernel, widgets, own_stream):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if kernel:
        monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    find = writers.importlib.util.find_spec

    def found(name, *more):
        return (widgets or None) if name == "ipywidgets" else find(name, *more)

    monkeypatch.setattr(writers.importlib.util, "find_spec", found)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    console = Console(stream=io.StringIO()) if own_stream else Console()
    console(event("start", 0, steps=8, replicas=[0]))
    assert (console._bar is not None) == (kernel and widgets and not own_stream)
    console(event("end", 8))


def test_a_bar_on_stderr_goes_past_what_escapes_its_control_characters(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "__stderr__", Terminal())
    console = Console()
    console(event("start", 0, steps=8, replicas=[0]))
    assert console._bar.console.file is sys.__stderr__
    console(event("end", 8))


@pytest.mark.parametrize(
    "value, text", [(3, "3"), (12345, "12,345"), (0.5, "0.5000"), (2.0, "2.0000")]
)
def test_whole_numbers_are_shown_plainly(value, text):
    assert format_number(value) == text
