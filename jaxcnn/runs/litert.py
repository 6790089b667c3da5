"""A run's model as a LiteRT file (formerly TensorFlow Lite), for telephones and small computers."""

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn import __version__
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Tree
from jaxcnn.errors import ConfigError, DependencyError
from jaxcnn.runs import litert_child
from jaxcnn.runs.agreement import Arrays, compare
from jaxcnn.runs.events import Record
from jaxcnn.runs.export import facts, text, traced, tracing
from jaxcnn.weights.files import write_atomically

# What was tried: the converter has no documented interface yet, and others may have another.
VERSIONS = {"litert-converter": "0.5", "ai-edge-litert": "2.3"}
ABOUT = "jaxcnn.json"
ROWS = 7  # that are compared


def export_litert(
    e: Experiment, state: Tree, path: Path, *, label_names: tuple[str, ...]
) -> Record:
    """Write the model from a raw row to what the task says of it, float32, one row at a time;
    {"file", "format", "inputs", "outputs", "label_names", "checked"}.

    The picture's preparation and the task's decoding are inside, as of ONNX. Behind the model lies
    a zip archive, as LiteRT's own metadata have it: `zipfile.ZipFile(file).read("jaxcnn.json")`
    says task, class names, and of each input layout and range. What the file answers is compared
    with JAX before it takes its name.
    Errors: ConfigError for a model that LiteRT does not express; DependencyError without the
    packages or with other versions; ResourceError where the file cannot be written.
    """
    _require()
    single = dataclasses.replace(e, compute_dtype="float32")
    model = traced(single, state)
    batch = {n: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for n, s in model.batch.items()}
    with tracing():
        function = jax.jit(model.predict, keep_unused=True)
        exported = jax.export.export(function, platforms=("cpu",))(batch)
        shapes = jax.eval_shape(model.predict, batch)
    about = facts(single, batch, label_names) | {"jaxcnn": __version__}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # the order in which JAX flattens a dict
        names = {"inputs": sorted(batch), "outputs": sorted(shapes)}
        (folder / "names.json").write_text(json.dumps(names))
        (folder / "model.vhlo").write_bytes(exported.mlir_module_serialized)
        _child("convert", folder)
        with zipfile.ZipFile(folder / "model.tflite", "a") as archive:
            archive.writestr(zipfile.ZipInfo(ABOUT), json.dumps(about, ensure_ascii=False))

        def ask(batch: dict[str, Any]) -> Arrays:
            np.savez(folder / "batch.npz", **batch)
            _child("answer", folder)
            with np.load(folder / "answers.npz") as found:
                return dict(found)

        checked = compare(ask, model, rows=(ROWS,), format="litert", runtime="LiteRT")
        write_atomically(path.absolute(), [(folder / "model.tflite").read_bytes()])
    inputs, outputs = ({n: text(s) for n, s in side.items()} for side in (batch, shapes))
    result = {"file": str(path), "format": "litert", "inputs": inputs, "outputs": outputs}
    return result | {"label_names": list(label_names), "checked": checked}


def _require() -> None:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    if any(not found[name].startswith(f"{known}.") for name, known in VERSIONS.items()):
        wanted = " and ".join(f"{name} {known}" for name, known in VERSIONS.items())
        here = ", ".join(f"{name} {version}" for name, version in found.items())
        raise DependencyError(
            f"export --format litert needs {wanted} (here: {here}): pip install 'jaxcnn[litert]'"
        )


def _child(verb: str, folder: Path) -> None:
    """Do a part of `litert_child`. -P: the modules beside the script hide none of Python's own.

    Errors: ConfigError where it fails, with the operation if that is known.
    """
    script = litert_child.__file__
    done = subprocess.run(
        [sys.executable, "-P", script, verb, str(folder)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if not done.returncode:
        return
    if done.returncode < 0:
        said = f"ended by {signal.Signals(-done.returncode).name}"
    else:
        said = (done.stdout.strip() or done.stderr.strip() or "unknown").splitlines()[-1][:300]
    who = {"convert": "its converter", "answer": "its interpreter"}[verb]
    raise ConfigError(
        f"format litert: LiteRT does not express this model ({who}: {said}); nothing was written. "
        "Export with the format 'onnx' or 'stablehlo'"
    )
