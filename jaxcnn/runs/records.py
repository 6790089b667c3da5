"""What a run directory holds as JSON, read and checked in one place: run.json, summary.json, the
lines of metrics.jsonl. A file that was edited or damaged is refused, with its name and the key.

Imports neither JAX nor NumPy: run.json says how JAX is to be started.
"""

import datetime
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxcnn.errors import CheckpointError, ConfigError

FORMAT = 2  # of run.json
KINDS = ("train", "eval", "stop")  # of the records that the history keeps
SHOWN = 5  # faults of a file that are named

Record = dict[str, Any]  # JSON-able
Check = Callable[[Any, str], Iterator[str]]  # (value, key) -> sentences on what is wrong


# ---- rules -----------------------------------------------------------------------------------


def _of(words: str, test: Callable[[Any], bool]) -> Check:
    def check(value: Any, key: str) -> Iterator[str]:
        if not test(value):
            yield f"{key or 'it'} is {_short(value)}, and must be {words}"

    return check


def _short(value: object) -> str:
    text = json.dumps(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "…"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether it is a number that a float can hold; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # of a whole number beyond, isfinite fails; NaN is none


def _count(low: int = 0) -> Check:
    words = f"a whole number from {low} to 2**53"
    return _of(words, lambda v: _is_whole(v) and low <= v <= 2**53)


def _or_null(check: Check) -> Check:
    return lambda value, key: iter(()) if value is None else check(value, key)


def _each(check: Check, *, least: int = 0) -> Check:
    def of(value: Any, key: str) -> Iterator[str]:
        if not isinstance(value, list) or len(value) < least:
            yield f"{key} must be a list" + (f" of at least {least}" if least else "")
            return
        for i, item in enumerate(value):
            yield from check(item, f"{key}.{i}")

    return of


def _row(*checks: Check) -> Check:
    def of(value: Any, key: str) -> Iterator[str]:
        if not isinstance(value, list) or len(value) != len(checks):
            yield f"{key} must be a list of {len(checks)}"
            return
        for i, (item, check) in enumerate(zip(value, checks, strict=True)):
            yield from check(item, f"{key}.{i}")

    return of


def _values(check: Check) -> Check:
    def of(value: Any, key: str) -> Iterator[str]:
        yield from _OBJECT(value, key)
        for name, item in value.items() if isinstance(value, dict) else ():
            yield from check(item, f"{key}.{name}".lstrip("."))

    return of


def _entries(required: dict[str, Check], **optional: Check) -> Check:
    """Other keys are free."""

    def of(value: Any, key: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield from _OBJECT(value, key)
            return
        for name, check in {**required, **optional}.items():
            path = f"{key}.{name}".lstrip(".")
            if name in value:
                yield from check(value[name], path)
            elif name in required:
                yield f"{path} is missing"

    return of


def _is_place(value: object) -> bool:
    """Whether it is a path that stays in its folder."""
    parts = re.split(r"[/\\]", value) if isinstance(value, str) else [""]
    return all(part not in ("", ".", "..") and ":" not in part for part in parts)


def _is_point_value(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(item is None or isinstance(item, str | bool | int | float) for item in items)


def _is_time(value: object) -> bool:
    try:
        found = datetime.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return found is not None and found.tzinfo is not None and 1970 <= found.year <= 9998


_OBJECT = _of("an object {…}", lambda v: isinstance(v, dict))
_TEXT = _of("a string", lambda v: isinstance(v, str))
_FLAG = _of("true or false", lambda v: isinstance(v, bool))
_NUMBER = _of("a finite number", is_finite)
_PLACE = _of("a path inside the folder", _is_place)
_DTYPE = _of(
    "a dtype",
    lambda v: bool(re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)|bfloat16", str(v))),
)
_POINT = _values(_of("a number, a string, a boolean, null or a flat list", _is_point_value))


def _edit(value: Any, key: str) -> Iterator[str]:
    """An override, or the point of the replica that a run goes on from."""
    return (_POINT if isinstance(value, dict) else _TEXT)(value, key)


_CODE = _entries(
    {"file": _or_null(_PLACE)},
    module=_TEXT,
    overrides=_each(_edit),
    local=_values(_PLACE),
    sha256=_values(_TEXT),
)
_CODE_OF_FILE = _entries({"module": _TEXT, "overrides": _each(_edit)})
_DATA = _entries(
    {
        "entries": _each(_row(_TEXT, _each(_count()), _DTYPE)),
        "label_names": _each(_TEXT),
        "sizes": _values(_count()),
    },
    files=_values(_row(_count(), _count(), _TEXT)),
    tokens=_TEXT,
)
_ENVIRONMENT = _entries(
    {},
    NPROC=_or_null(
        _of("a number of threads", lambda v: bool(re.fullmatch("[1-9]\\d{0,3}", str(v))))
    ),
    XLA_FLAGS=_of("flags of XLA", lambda v: isinstance(v, str) and "\0" not in v),
    convolution=_of("a name", lambda v: isinstance(v, str) and v.isidentifier()),
    versions=_values(_TEXT),
    settings=_OBJECT,
    source=_values(_TEXT),
)


def _rendering(value: Any, key: str) -> Iterator[str]:
    """What `jaxcnn.core.rendering.render` gives: names are strings."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in pairs:
        path = f"{key}.{name}"
        if isinstance(value, dict) and name in ("type", "partial", "function"):
            yield from _TEXT(item, path)
        elif isinstance(item, dict | list):
            yield from _rendering(item, path)


_RUN = _entries(
    {
        "experiment": _TEXT,
        "code": _CODE,
        "steps_per_dispatch": _count(1),
        "data": _DATA,
        "rendered": _entries({"type": _TEXT, "data": lambda value, key: iter(())}),
        "environment": _ENVIRONMENT,
    },
    id=_of("a run's identity", lambda v: bool(re.fullmatch(r"[0-9a-f]{32}(-\d+)?", str(v)))),
    began=_of("a time with its zone, such as 2026-12-01T09:30:00+00:00", _is_time),
    points=_each(_POINT, least=1),
    halving=_or_null(_count(2)),
    together=_count(1),
    started_in=_TEXT,
    started_from=_entries({"run": _TEXT, "step": _count()}),
    published=_entries({"step": _count(), "checkpoint": _TEXT}),
    weights=_values(_TEXT),
    replica=_count(),
    point=_POINT,
    way=_TEXT,
)
_SUMMARY = _entries({"completed": _FLAG, "seconds": _NUMBER}, test=_or_null(_OBJECT))
_OF_ONE = _entries(
    {"verdict": _TEXT, "step": _count(), "epoch": _NUMBER, "eval": _or_null(_OBJECT)},
    best=_OBJECT,
    state_sha256=_or_null(_TEXT),
)
_OF_SWEEP = _entries({"metric": _TEXT, "settings": _each(_OBJECT), "replicas": _each(_OBJECT)})
_LINE = _entries(
    {
        "kind": _of(f"one of {', '.join(KINDS)}", lambda v: v in KINDS),
        "step": _count(),
        "epoch": _NUMBER,
        "seconds": _NUMBER,
    }
)
_OF_KIND = {
    "train": _entries({}),
    "eval": _entries({"metrics": _OBJECT}),
    "stop": _entries({"why": _TEXT, "at": _count()}),
}


# ---- files -----------------------------------------------------------------------------------


def read_run(folder: Path) -> Record:
    """run.json of a run, checked.

    Errors: ConfigError where there is none, or one of another version of jaxcnn; CheckpointError
    for one that cannot be read, or that was edited into nonsense, with the keys.
    """
    path = folder / "run.json"
    content = read_json(path)
    found = content.get("format")
    if not isinstance(found, int) or isinstance(found, bool):
        raise CheckpointError(f"{path}: format is {_short(found)}, and must be {FORMAT}")
    if found != FORMAT:
        age = "an older" if found < FORMAT else "a newer"
        raise ConfigError(
            f"{path}: format is {_short(found)}, that of {age} version of jaxcnn; this one reads "
            f"format {FORMAT}: open the run with the version that made it"
        )
    wrong = [*_RUN(content, "")]
    if not wrong and content["code"]["file"] is not None:
        wrong += _CODE_OF_FILE(content["code"], "code")
    if not wrong:
        wrong += _rendering(content["rendered"], "rendered")
    _refuse(path, wrong)
    return content


def now() -> str:
    """The time as run.json has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def carried_to(record: Record) -> int:
    """The step up to which a run's history is that of the run that it goes on from, made with other
    settings or on other data; 0 of a run that began by itself. `record`: run.json.
    """
    return record.get("started_from", {}).get("step", 0)


def read_summary(folder: Path) -> Record | None:
    """summary.json of a run, checked; None where there is none yet. Errors: CheckpointError."""
    path = folder / "summary.json"
    if not path.is_file():
        return None
    content = read_json(path)
    own = _OF_SWEEP if "replicas" in content else _OF_ONE
    _refuse(path, [*_SUMMARY(content, ""), *own(content, "")])
    return content


def read_history(path: Path) -> tuple[list[Record], list[str]]:
    """(the records of metrics.jsonl, sentences on lines that are none). A last line that a crash
    has torn is no fault: its record is made again. Errors: CheckpointError.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    records, faults = [], []
    for number, line in enumerate(lines, 1):
        record: Record = {}
        try:
            record = json.loads(line.decode())
            wrong = [*_LINE(record, "")]
            wrong = wrong or [*_OF_KIND[record["kind"]](record, ""), *_odd_numbers(record)]
        except (ValueError, RecursionError) as error:
            wrong = [f"no JSON ({error})"]
        if not wrong:
            records.append(record)
        elif number < len(lines):  # what follows the last line break is empty, or torn
            faults.append(f"{path}: line {number} is damaged: {wrong[0]}")
    return records, faults


def _odd_numbers(record: Record) -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{key} is {value}"


def read_json(path: Path) -> Record:
    """Errors: ConfigError where there is none, CheckpointError for one that cannot be read."""
    try:
        content = json.loads(path.read_bytes().decode())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{path.parent}: is not a run directory (no {path.name}); a run is what `train` makes"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: cannot be read (it holds {type(content).__name__})")
    return content


def _refuse(path: Path, wrong: list[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise CheckpointError(
            f"{path}: was edited or damaged: {'; '.join(wrong[:SHOWN])}{more}; put it back as it "
            "was"
        )
