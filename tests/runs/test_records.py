"""JSON that parses is still checked: what was edited by hand is refused with file and key."""

import copy
import json
import random
import shutil

import pytest

from jaxcnn.errors import CheckpointError, ConfigError, JaxcnnError, Preempted
from jaxcnn.runs import code
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.records import read_history, read_run, read_summary
from jaxcnn.runs.train import train
from tests.commands.test_cli import launch
from tests.tiny import Lines, fit, stop_at, tiny

SWEEP = [{"seed": 0, "optimizer.learning_rate": 0.01}, {"seed": 1, "optimizer.learning_rate": 0.02}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that can be opened without being given its experiment, and a sweep of it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.raises(Preempted):
        fit(tiny(), folder / "run", observe=[stop_at(8)])
    train("xor_mlp", folder / "xor", overrides=["steps=4", "log_every=1"], quiet=True)
    fit(tiny(), folder / "sweep", points=SWEEP)
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made / "run", tmp_path / "run")


def put(path, key, value):
    """Set (or with `...` remove) a dotted key of a JSON file."""
    content = json.loads(path.read_text())
    place, *more = key.split(".")
    inner = content
    while more:
        inner, (place, *more) = inner[int(place) if isinstance(inner, list) else place], more
    place = int(place) if isinstance(inner, list) else place
    if value is ...:
        del inner[place]
    else:
        inner[place] = value
    path.write_text(json.dumps(content))


RUN_KEYS = [
    ("steps_per_dispatch", -1),
    ("steps_per_dispatch", 1e300),
    ("steps_per_dispatch", None),
    ("steps_per_dispatch", float("nan")),
    ("steps_per_dispatch", 10**40),
    ("steps_per_dispatch", True),
    ("steps_per_dispatch", ...),
    ("experiment", 3),
    ("code", []),
    ("code.file", "../evil.py"),
    ("code.file", "/tmp/evil.py"),
    ("code.local", {"evil": "a/../../evil.py"}),
    ("data", None),
    ("data.entries", [["image", [8, 8, -1], "uint8"]]),
    ("data.entries", [["image", [8, 8, 1], "nonsense"]]),
    ("data.sizes", {"train": "many"}),
    ("rendered", "text"),
    ("rendered.model.type", 3),
    ("environment", [1]),
    ("environment.NPROC", "lots"),
    ("environment.NPROC", {"a": 1}),
    ("environment.XLA_FLAGS", ["--xla"]),
    ("id", "mine"),
    ("points", []),
    ("points", [3]),
    ("points", {"seed": 1}),
    ("halving", 0),
    ("started_from", {"run": "x", "step": -1}),
]


@pytest.mark.parametrize("key, value", RUN_KEYS, ids=lambda v: str(v)[:25])
def test_nonsense_in_run_json_is_refused_with_its_key(run, key, value):
    put(run / "run.json", key, value)
    for verb in (read_run, lambda folder: fit(tiny(), folder, resume=True), open_run):
        with pytest.raises(CheckpointError) as caught:
            verb(run)
        assert str(run / "run.json") in str(caught.value)
        assert key.split(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    "blob",
    [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 100_000, b"NaN"],
    ids=lambda blob: str(blob[:6]),
)
@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_a_file_that_is_no_json_object_is_refused(run, name, blob):
    (run / name).write_bytes(blob)
    read = read_run if name == "run.json" else read_summary
    with pytest.raises(CheckpointError, match=name):
        read(run)


@pytest.mark.parametrize(
    "value, error, text",
    [(1, ConfigError, "an older version"), (99, ConfigError, "a newer version"),
     ("2", CheckpointError, "format"), (None, CheckpointError, "format")],
)  # fmt: skip
def test_another_format_says_so(run, value, error, text):
    put(run / "run.json", "format", value)
    with pytest.raises(error, match=text):
        open_run(run)


@pytest.mark.parametrize(
    "key, value",
    [("verdict", 3), ("eval", []), ("seconds", float("inf")), ("seconds", ...), ("step", "8"),
     ("completed", "no"), ("best", None)],
)  # fmt: skip
def test_nonsense_in_a_summary_is_refused_with_its_key(run, key, value):
    put(run / "summary.json", key, value)
    with pytest.raises(CheckpointError, match=f"summary.json.*{key}"):
        _ = open_run(run).summary


def test_points_that_do_not_fit_are_named(made, tmp_path):
    folder = shutil.copytree(made / "sweep", tmp_path / "sweep")
    put(folder / "run.json", "points.1", {"seed": 1, "no.such": 3})
    with pytest.raises(CheckpointError, match=r"run\.json: points\.1.*no"):
        fit(tiny(), folder, resume=True)
    folder = shutil.copytree(made / "sweep", tmp_path / "other")
    put(folder / "run.json", "points.1.seed", 7)
    put(folder / "replicas/1/summary.json", "completed", False)
    with pytest.raises(CheckpointError, match="is not replica 1 of this sweep: point"):
        fit(tiny(), folder, resume=True)


def test_every_verb_refuses_what_was_edited_without_a_traceback(made, tmp_path):
    """One process a verb, with one fault each."""
    for verb, fault in (
        (("evaluate", "RUN"), ("run.json", "steps_per_dispatch", -1)),
        (("train", "--resume", "RUN"), ("run.json", "environment.NPROC", [])),
    ):
        folder = shutil.copytree(made / "xor", tmp_path / verb[0])
        put(folder / fault[0], *fault[1:])
        done = launch(*(str(folder) if word == "RUN" else word for word in verb))
        assert done.returncode == 4, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert fault[1].split(".")[0] in done.stderr


def mutate(value, generator):
    """A JSON value with one random place changed, removed or wrapped."""
    value = copy.deepcopy(value)
    places = []

    def walk(item):
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        for key, inner in list(pairs):
            places.append((item, key))
            if isinstance(inner, dict | list):
                walk(inner)

    walk(value)
    item, key = generator.choice(places)
    nonsense = [None, -1, 1e300, "", "x", [], {}, True, float("nan"), 10**30, [[[]]], {"type": 3}]
    if generator.random() < 0.2:
        del item[key]
    else:
        item[key] = generator.choice(nonsense)
    return value


def test_random_edits_give_declared_errors_alone(made, tmp_path):
    """300 edits of run.json, summary.json and metrics.jsonl of a solo run and a sweep."""
    generator, refused = random.Random(0), 0
    for source in ("run", "xor", "sweep"):
        folder = shutil.copytree(made / source, tmp_path / source)
        kept = {n: (folder / n).read_text() for n in ("run.json", "summary.json")}
        for _ in range(100):
            name = generator.choice(list(kept))
            (folder / name).write_text(json.dumps(mutate(json.loads(kept[name]), generator)))
            try:
                run = open_run(folder)
                _ = run.summary, run.history, run.data, repr(run), run._repr_html_()
                _ = [replica.record for replica in run.replicas]
                code.reopen(folder, run.record)
            except JaxcnnError as error:
                refused += 1
                assert str(folder) in str(error)  # noqa: PT017 (most edits change nothing)
            (folder / name).write_text(kept[name])
    assert refused > 50  # of 300; the rest change nothing that counts


def lines_of(run):
    return (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)


BROKEN = [
    b"{\n",
    b"\xff\xfe\n",
    b"[]\n",
    b'{"kind": "train", "step": -1}\n',
    b"[" * 100_000 + b"\n",
    b'{"kind": "train", "step": 3, "epoch": 1, "seconds": NaN}\n',
    b"\n",
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda line: str(line[:12]))
def test_a_damaged_line_is_named_and_those_after_it_are_kept(run, broken, capsys):
    lines = lines_of(run)
    whole = [json.loads(line) for line in lines]
    (run / "metrics.jsonl").write_bytes(b"".join([*lines[:2], broken, *lines[3:]]))
    assert open_run(run).history == whole[:2] + whole[3:]
    assert "metrics.jsonl: line 3 is damaged" in capsys.readouterr().err
    before = (run / "metrics.jsonl").read_bytes()
    console = Lines()
    fit(tiny(), run, resume=True, console=console)
    assert any("line 3 is damaged" in line for line in console.lines)
    assert (run / "metrics.jsonl.damaged").read_bytes() == before
    records, faults = read_history(run / "metrics.jsonl")
    assert records[: len(whole) - 1] == whole[:2] + whole[3:]
    assert not faults


def test_a_torn_last_line_is_dropped_without_a_word(run, capsys):
    lines = lines_of(run)
    (run / "metrics.jsonl").write_bytes(b"".join(lines) + lines[-1][:30])
    assert len(open_run(run).history) == len(lines)
    assert not capsys.readouterr().err
