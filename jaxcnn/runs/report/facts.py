"""What a run was made of: the experiment as rendered, its code, changes to jaxcnn, versions,
hardware, and the command that makes it again.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxcnn.core import rendering
from jaxcnn.errors import ConfigError
from jaxcnn.runs.events import Record
from jaxcnn.runs.open import Run
from jaxcnn.runs.report.page import Html, details, dotted, join, note, table, tag

MOST_TEXT = 200_000  # characters of a file that are shown
MOST_ROWS = 1_000  # fields of the experiment
DIFFS = {"project.diff": "the project", "jaxcnn.diff": "jaxcnn"}  # file of a run's code: whose


def fields(rendered: Any) -> Iterator[tuple[str, str]]:
    """(dotted path, value) of a rendering (jaxcnn.core.rendering), its classes and functions by
    their last names.
    """
    for name, value in rendering.fields(rendered):
        text = str(value)
        yield name, text if len(text) <= 400 else f"{text[:400]}…"


def experiment(record: Record) -> Html:
    """The rendered experiment as a table."""
    rows = [(dotted(name), value) for name, value in fields(record["rendered"])]
    more = note(f"{len(rows) - MOST_ROWS:,} more fields") if len(rows) > MOST_ROWS else None
    return join([table(("field", "value"), rows[:MOST_ROWS], words=2), more])


def code(run: Run) -> tuple[Html, list[str]]:
    """(the files that the run kept of its code, and the changes to its project and to jaxcnn;
    sentences on those that are not shown). A file that a link leads out of the run's folder to is
    not.
    """
    kept = run.record["code"]
    names = [kept["file"], *kept.get("local", {}).values(), *DIFFS, "notebook_cells.py"]
    parts, left_out = [], []
    for name in dict.fromkeys(filter(None, names)):
        path = run.folder / "code" / name
        if not path.is_file():
            if name in (kept["file"], *kept.get("local", {}).values()):
                left_out.append(f"code/{name}: the file is gone")
            continue
        if not path.resolve().is_relative_to(run.folder.resolve()):
            left_out.append(f"code/{name}: a link that leads out of the run's folder")
            continue
        shown, cut = _text(path)
        title = f"changes to {DIFFS[name]} since its commit (git diff)" if name in DIFFS else name
        fold = details(title, tag("pre", shown), cut, opened=name == kept["file"])
        # many pages of paper for what a screen shows at will
        parts.append(tag("div", fold, class_="screen") if name in DIFFS else fold)
    if not parts:
        parts.append(note("the experiment was made in Python, without a file; see its fields"))
    return join(parts), left_out


def _text(path: Path) -> tuple[str, Html | None]:
    """(the beginning of a file, a remark where there is more)."""
    with open(path, "rb") as file:
        content = file.read(MOST_TEXT + 1)
    text = content[:MOST_TEXT].decode("utf-8", "replace")
    cut = len(content) > MOST_TEXT
    return text, note(f"cut here, of {path.stat().st_size:,} bytes") if cut else None


def command(run: Run) -> str:
    """The command that makes the run again from the code that it keeps, in a new folder.

    Errors: ConfigError where there is none: the experiment was made in Python, or is a part of
    something.
    """
    record = run.record
    if "started_from" in record:
        start = record["started_from"]
        raise ConfigError(
            f"it went on from step {start['step']:,} of {start['run']}: make that again, and go on "
            "from it by train --from"
        )
    if "fold" in record.get("point", {}):
        raise ConfigError(
            f"it was trained without fold {record['point']['fold']} of its examples, which no "
            "command does alone: make the whole cross-validation again, by train --folds"
        )
    if not record["code"]["file"]:
        raise ConfigError("the experiment was made in Python, without a file that could be named")
    threads = record["environment"].get("NPROC")
    words = [f"NPROC={threads}"] if threads else []
    words += ["python", "launch.py", "train", str(run.folder / "code" / record["code"]["file"])]
    for edit in (*record["code"]["overrides"], record.get("point", {})):
        own = edit if isinstance(edit, dict) else {}
        words += [f"{path}={value}" for path, value in own.items()]
        words += [] if isinstance(edit, dict) else [edit]
    words += ["--run-dir", f"{run.folder}-again"]
    return shlex.join(words)


def circumstances(run: Run) -> Html:
    """Versions, hardware, commit, and the command."""
    record, seen = run.record, run.record["environment"]
    rows: list[tuple[object, object]] = [("run", run.folder), ("identity", record.get("id", "–"))]
    try:
        again: object = tag("code", command(run))
    except ConfigError as error:
        again = str(error)
    rows.append(("to make it again", again))
    argv = seen.get("command")
    if isinstance(argv, list):
        rows.append(("started by", tag("code", " ".join(map(str, argv)))))
    rows.append(("started in", record.get("started_in", "–")))
    if "started_from" in record:
        start = record["started_from"]
        rows.append(("goes on from", f"{start['run']}, step {start['step']:,}"))
    if "point" in record:
        rows.append(("point of a sweep", ", ".join(f"{k}={v}" for k, v in record["point"].items())))
    versions = seen.get("versions", {})
    shown = ", ".join(f"{k} {v or '?'}" for k, v in versions.items())
    rows.append(("versions", f"Python {seen.get('python', '?')}, {shown}"))
    if seen.get("commit"):
        changed = ", with changes (see the code)" if seen.get("modified") is True else ""
        rows.append(("commit of jaxcnn", f"{seen['commit']}{changed}"))
    project = record.get("project")
    if isinstance(project, dict) and project.get("commit"):
        changed = ", with changes" if project.get("modified") is True else ""
        rows.append(("commit of the project", f"{project['commit']}{changed}"))
    names = ("backend", "device", "num_devices", "processor", "platform", "NPROC", "XLA_FLAGS")
    rows += [(name, seen[name]) for name in names if seen.get(name) not in (None, "")]
    return table((), rows, words=2)
