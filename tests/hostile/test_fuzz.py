"""Damaged or malicious bytes in weights, checkpoints, overrides and run directories, by the
mechanism of tests/data/test_fuzz.py; `make fuzz` runs 20,000 inputs each, here are few.
"""

import contextlib
import json

import jax
import numpy as np
import pytest

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.override import override_all
from jaxcnn.core.rendering import render
from jaxcnn.data.recorded import record
from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.open import Run
from jaxcnn.weights.files import read_arrays, read_sealed, write_arrays
from tests.data.fuzz import changed, refused
from tests.hostile.weights_attacks import archive
from tests.seals import sealed_again
from tests.tiny import tiny
from tests.weights.torch_files import dump, save

STATE = {"params/a": np.ones((2, 3), np.float32), "step": np.int32(7)}
METADATA = {"format": "jaxcnn 1", "step": "7", "state_sha256": "0" * 64}


def written(folder, kind):
    """The bytes of a file of weights, and its name."""
    path = folder / f"w.{kind}"
    if kind == "safetensors":
        write_arrays(path, {k: np.asarray(v) for k, v in STATE.items()}, METADATA)
    elif kind == "npz":
        np.savez(path, **STATE)
    else:
        save({"w": STATE["params/a"]}, path, zipped=kind == "pth")
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["safetensors", "npz", "pth", "bin"])
def test_weights(kind, tmp_path):
    path = tmp_path / f"w.{kind}"

    def read(data):
        path.write_bytes(data)
        read_arrays(path)

    whole = written(tmp_path, kind)
    read(whole)  # else all that is made of it could be refused for one fault
    assert refused(changed(whole), read)


def test_the_pickle_of_a_torch_file(tmp_path):
    pickled, storages = dump({"w": STATE["params/a"], "deep": {"list": [STATE["params/a"]] * 2}})
    path = tmp_path / "w.pth"

    def read(data):
        path.write_bytes(archive(data, numbers=bytes(24), storages=len(storages)))
        read_arrays(path)

    read(pickled)
    assert refused(changed(pickled), read)


def test_foreign_safetensors(tmp_path):
    path = tmp_path / "w.safetensors"
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    text = json.dumps({"__metadata__": {"by": "others"}, "a": entry}).encode()

    def read(data):
        path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(24))
        read_arrays(path)

    read(text)
    assert refused(changed(text), read)


def test_a_changed_checkpoint_is_never_believed(tmp_path):
    blob = written(tmp_path, "safetensors")
    path = tmp_path / "w.safetensors"

    def read(data):
        path.write_bytes(data)
        read_sealed(path)
        assert data == blob

    read(blob)
    assert refused(changed(blob), read)


def test_a_checkpoint_that_was_sealed_by_somebody_else(tmp_path):
    template = {"params": {"a": jax.ShapeDtypeStruct((2, 3), np.float32)}}
    template["step"] = jax.ShapeDtypeStruct((), np.int32)  # pyright: ignore[reportArgumentType]
    blob = written(tmp_path, "safetensors")
    path = tmp_path / "last-000000007.safetensors"

    def read(data):
        path.write_bytes(sealed_again(data))
        with contextlib.suppress(CheckpointError):
            read_sealed(path)
        Checkpoints(tmp_path).restore(template, set_aside=False)

    assert sealed_again(blob) == blob
    read(blob)  # what is imported or compiled once does not count
    assert refused(changed(blob), read)


PATHS = (
    *("model.width", "optimizer.learning_rate", "seed", "ema", "augment", "data", "weights"),
    *("model.__class__", "task.num_classes", "augment.0.pixels", "rates", "objective", "epochs"),
)
LETTERS = "0123456789.-+e_[](){}'\"\\,=:ab \n\0é\x1b"
CODE = "__import__('os').system('touch canary')"
VALUES = (
    *("1", "9" * 400, "9" * 5000, "1e999", "-1", "nan", "None", "True", "()", "[[[", "{}", "''"),
    *(CODE, "0x" + "f" * 300, "1_0", "(" * 300, "\0", "9j", "b'a'", "...", "*", "lambda: 1"),
    *("f'{1}'", "'a' 'b'", "-(1)", "1 if 1 else 2", "[1]*9"),
)


def test_overrides():
    e = tiny()

    def text(random, known, length):
        letters = random.choices(LETTERS, k=random.randint(0, length))
        return random.choice([random.choice(known), "".join(letters)])

    def make(random):
        values = [text(random, VALUES, 20) for _ in range(random.randint(1, 3))]
        return f"{text(random, PATHS, 12)}={''.join(values)}"

    def apply(override):
        assert isinstance(override_all(e, [override]), Experiment)

    assert refused(make, apply, error=ConfigError)


SUMMARY = {"completed": True, "seconds": 1.0, "verdict": "completed", "step": 4, "epoch": 0.5}
SUMMARY |= {"eval": {"accuracy": 0.5}}
RUN = ("run.json", "metrics.jsonl", "summary.json")


@pytest.mark.parametrize("name", RUN)
def test_files_of_a_run(name, tmp_path):
    e = tiny()
    content = {"format": 2, "experiment": "tiny", "code": {"file": None, "local": {}}}
    content |= {"rendered": render(e), "data": record(e.data).to_json(), "environment": {}}
    content |= {"steps_per_dispatch": 1}
    row = {"kind": "eval", "step": 4, "epoch": 0.5, "seconds": 1.0, "metrics": {"accuracy": 0.5}}
    files = dict(zip(RUN, (content, row, SUMMARY), strict=True))
    for file, what in files.items():
        (tmp_path / file).write_text(json.dumps(what) + "\n")

    def read(data):
        (tmp_path / name).write_bytes(data)
        run = Run(tmp_path, e)
        _ = run.data.spec(), run.data.size("train"), run.replicas, run.summary, run.history
        _ = run.metrics, run.experiment, repr(run), run._repr_html_()

    text = (tmp_path / name).read_bytes()
    read(text)
    assert refused(changed(text), read) or name == "metrics.jsonl"
