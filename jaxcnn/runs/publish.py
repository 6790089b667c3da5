"""A run's model as a folder for others, such as the Hugging Face hub takes: model card, weights,
the exported model, how pictures are prepared, one example with its answer, and the code.

What lies in it is said by `jaxcnn.runs.published`; places of this machine are left out of run.json.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Batch, Tree
from jaxcnn.core.rendering import without_nan
from jaxcnn.errors import ConfigError, DataError, DependencyError, ResourceError
from jaxcnn.runs.answers import as_json
from jaxcnn.runs.card import Facts, card
from jaxcnn.runs.evaluation import predict_step
from jaxcnn.runs.events import Record
from jaxcnn.runs.open import Run
from jaxcnn.runs.published import WEIGHTS, difference, read_state, write_weights
from jaxcnn.runs.rundir import write_json
from jaxcnn.tasks.verdict import judge
from jaxcnn.weights.files import write_atomically

MODEL = "model.jax"
ONNX = "model.onnx"
# of run.json: what is copied as it is, and what of the environment says nothing about results
KEPT = (
    *("format", "id", "experiment", "project", "steps_per_dispatch", "rendered", "point"),
    *("began", "started_from", "weights"),
)
PRIVATE = ("command",)
TOLERANCE = 1e-4


class Published(NamedTuple):
    """What was made: `files` {name: bytes}; `notes`, sentences on what is left out or is to be
    looked at before others see it.
    """

    folder: Path
    files: dict[str, int]
    notes: list[str]


def publish(
    run: Run,
    folder: Path | str,
    *,
    license: str | None = None,
    sample: bool = True,
    onnx: bool = False,
    repo: str | None = None,
    platforms: Sequence[str] | None = None,
) -> Published:
    """Make `folder`, which must be new or empty, of a run's checkpoint.

    license: an identifier of the hub, such as "apache-2.0"; None: the card says that it is unknown.
    platforms: where its file for JAX shall run; see `jaxcnn.runs.formats.export_as`.
    sample: put the first validation example into the folder, where the data are at hand.
    onnx: put model.onnx beside the rest, which needs `jaxcnn[onnx]`. It is asked for, so that what
    is published does not depend on what is installed here.
    repo: OWNER/NAME, where on the hub it will lie, for the card.
    Errors: ConfigError for a sweep, for a folder that holds files, for a model that cannot be
    exported, and where the published folder does not answer as the run does; DependencyError
    without flatbuffers, or the packages of ONNX; ResourceError where it cannot be written.
    """
    folder = Path(folder).absolute()
    if run.is_sweep:
        raise ConfigError(f"{run.folder} is a sweep: publish one of its runs, by --replica I")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: holds files already; name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
            made = Path(place, "made")
            made.mkdir()
            notes = _fill(
                run,
                made,
                license=license,
                sample=sample,
                onnx=onnx,
                repo=repo,
                platforms=platforms,
            )
            files = {
                path.relative_to(made).as_posix(): path.stat().st_size
                for path in sorted(made.rglob("*"))
                if path.is_file()
            }
            os.replace(made, folder)
    except OSError as error:
        raise ResourceError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another --output"
        ) from error
    return Published(folder, files, notes)


def _fill(
    run: Run,
    folder: Path,
    *,
    license: str | None,
    sample: bool,
    onnx: bool,
    repo: str | None,
    platforms: Sequence[str] | None,
) -> list[str]:
    """Write all files; sentences on what is left out."""
    state, step, e = run.state, run.step, run.decided(run.standalone())
    count = write_weights(state, folder / WEIGHTS, step=step)
    exported = run.export(folder / MODEL, platforms=platforms)
    other = run.export(folder / ONNX, format="onnx") if onnx else None
    record = _record(run, step)
    write_json(folder / "run.json", record)
    notes = [*_code(run, folder / "code"), *_places(record["rendered"])]
    _history(run, folder, step)
    example, why = _example(run, e) if sample else (None, "it was not asked for")
    batch = _random(e) if example is None else example
    row, outputs = _answer(e, state, batch)
    if example is None:
        notes.append(f"no sample: {why}")
    else:
        _sample(run, folder, batch, row)
    off = _check(e, folder, record, batch, outputs)
    preparation = _preparation(run, e, exported)
    _write_text(folder / "preprocess.json", json.dumps(preparation, indent=1))
    evaluation = run.validation
    text = card(
        Facts(
            run=run,
            record=record,
            step=step,
            verdict=judge(e.task, evaluation["metrics"]) if evaluation else None,
            evaluation=evaluation,
            summary=run.summary,
            row=row,
            preparation=preparation,
            numbers=count,
            off=off,
            onnx=other,
            sample=None if example is None else as_json(row),
            license=license,
            repo=repo,
        )
    )
    _write_text(folder / "README.md", text)
    return notes


def _record(run: Run, step: int) -> Record:
    """run.json without what is of this machine alone."""
    own = run.record
    record = {name: own[name] for name in KEPT if name in own}
    record["code"] = {k: v for k, v in own["code"].items() if k != "source"}
    record["data"] = {k: v for k, v in own["data"].items() if k != "files"}
    seen = own["environment"]
    record["environment"] = {k: v for k, v in seen.items() if k not in PRIVATE}
    return record | {"published": {"step": step, "checkpoint": run.checkpoint}}


def _code(run: Run, folder: Path) -> list[str]:
    """Copy the files that the run kept of its code; sentences on those that are not."""
    kept, notes = run.record["code"], []
    folder.mkdir()
    own = [*([kept["file"]] if kept["file"] else []), *kept.get("local", {}).values()]
    for name in (*own, "jaxcnn.diff"):
        source = run.folder / "code" / name
        if not source.is_file():
            notes += [f"code/{name} is gone"] if name in own else []
        elif not source.resolve().is_relative_to(run.folder.resolve()):
            notes.append(f"code/{name}: a link that leads out of the run's folder; left out")
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    return notes


def _places(rendered: object, *, path: str = "") -> list[str]:
    """Sentences on fields of the experiment that name a place of this machine."""
    if isinstance(rendered, dict | list):
        pairs = rendered.items() if isinstance(rendered, dict) else enumerate(rendered)
        found = [_places(item, path=f"{path}.{name}".lstrip(".")) for name, item in pairs]
        return [text for texts in found for text in texts]
    if isinstance(rendered, str) and rendered and Path(rendered).expanduser().is_absolute():
        return [f"run.json names a place of this machine: {path} = {rendered!r}"]
    return []


def _history(run: Run, folder: Path, step: int) -> None:
    """metrics.jsonl up to the checkpoint, and summary.json as of it."""
    records = [r for r in run.history if r["step"] <= step]
    lines = "".join(f"{json.dumps(r)}\n" for r in records)
    _write_text(folder / "metrics.jsonl", lines)
    summary = dict(run.summary)
    if not summary:
        return
    if summary["step"] != step:  # what was measured at the end is not of this checkpoint
        summary = {k: v for k, v in summary.items() if k not in ("test", "state_sha256")}
        found = run.validation
        if found is not None:
            summary |= {"step": step, "epoch": found["epoch"], "eval": found["metrics"]}
    write_json(folder / "summary.json", summary)


def _example(run: Run, e: Experiment) -> tuple[Batch | None, str]:
    """(the first validation example, [1, …] of each input, or None; why there is none)."""
    try:
        taken = run.experiment.data.open("eval").take(np.zeros(1, np.int32))
    except (DataError, DependencyError, OSError) as error:
        return None, str(error)
    return {name: np.asarray(taken[name]) for name in _inputs(e)}, ""


def _inputs(e: Experiment) -> list[str]:
    return [name for name in e.task.inputs if name not in e.task.training_inputs]


def _random(e: Experiment) -> Batch:
    """Noise of the right form, to compare by where there is no example."""
    random, spec = np.random.default_rng(0), e.data.spec()

    def noise(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if dtype.kind == "f":
            return random.uniform(size=(1, *shape)).astype(dtype)
        return random.integers(0, 256 if dtype == np.uint8 else 2, (1, *shape)).astype(dtype)

    return {n: noise(tuple(spec[n].shape), np.dtype(spec[n].dtype)) for n in _inputs(e)}


def _answer(e: Experiment, state: Tree, batch: Batch) -> tuple[Record, Tree]:
    """(the described row, the arrays) of what the run's model says of one example."""
    full = dict(batch)
    for name in e.task.training_inputs:
        spec = e.data.spec()[name]
        full[name] = np.zeros((1, *spec.shape), spec.dtype)
    outputs = jax.device_get(predict_step(e, state)(state, full))
    row = e.task.describe(jax.tree.map(lambda x: x[0], outputs), names=tuple(e.data.label_names))
    return row, outputs


def _sample(run: Run, folder: Path, batch: Batch, row: Record) -> None:
    """sample.npz (the inputs as the model takes them), sample.png where it is a picture, and
    sample.json with the answer.
    """
    from PIL import Image

    np.savez_compressed(folder / "sample.npz", **batch)
    content: Record = {"inputs": "sample.npz", "answer": as_json(row)}
    (name, *others) = batch
    picture = batch[name][0]
    drawable = picture.ndim == 3 and picture.shape[-1] in (1, 3) and picture.dtype == np.uint8
    if drawable and not others:
        shown = picture[..., 0] if picture.shape[-1] == 1 else picture
        Image.fromarray(shown).save(folder / "sample.png")
        content["picture"] = "sample.png"
    content["from"] = "the first validation example"
    _write_text(folder / "sample.json", json.dumps(without_nan(content), indent=1))


def _check(e: Experiment, folder: Path, record: Record, batch: Batch, outputs: Tree) -> float:
    """The largest difference between the run's outputs and those of the two files, for one example.

    Errors: ConfigError where it is more than rounding.
    """
    again = _answer(e, read_state(e, folder, record), batch)[1]
    exported = jax.export.deserialize(bytearray((folder / MODEL).read_bytes()))
    if jax.default_backend() in exported.platforms:
        pairs = {WEIGHTS: again, MODEL: jax.device_get(exported.call(batch))}
    else:
        pairs = {WEIGHTS: again}
    worst = {name: difference(outputs, found) for name, found in pairs.items()}
    for name, off in worst.items():
        largest = max((float(np.abs(x).max(initial=0)) for x in _floats(outputs)), default=0.0)
        if not off <= TOLERANCE * max(1.0, largest):
            raise ConfigError(
                f"publish: {name} answers otherwise than the run (by {off:.3g}), so it is not "
                "published; a model that draws random numbers in evaluation does that"
            )
    return max(worst.values())


def _floats(tree: Tree) -> list[np.ndarray]:
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    return [np.where(np.isfinite(x), x, 0) for x in leaves if x.dtype.kind == "f"]


def _preparation(run: Run, e: Experiment, exported: Record) -> Record:
    """How inputs are prepared, for preprocess.json."""
    spec, inputs = e.data.spec(), {}
    for name in _inputs(e):
        shape, dtype = list(spec[name].shape), np.dtype(spec[name].dtype)
        one: Record = {"shape": ["rows", *shape], "dtype": dtype.name}
        if len(shape) == 3 and shape[-1] in (1, 3):
            one |= {"layout": "NHWC", "colour": "RGB" if shape[-1] == 3 else "grey (BT.601 luma)"}
            one["size"] = {"height": shape[0], "width": shape[1]}
            if e.task.any_size:
                one["other_sizes"] = f"by jaxcnn; {MODEL} takes this one alone"
            one["resize"] = "bilinear, as wide as the reduction; the aspect ratio is not kept"
            one["range"] = [0, 255] if dtype == np.uint8 else [0.0, 1.0]
        inputs[name] = one
    transforms = [
        str(t.get("partial") or t.get("function") or t.get("type"))
        for t in run.record["rendered"].get("transform", [])
        if isinstance(t, dict)
    ]
    return {
        "inputs": inputs,
        "inside_the_model": ["uint8 pictures become float32 in [0, 1]", *transforms],
        "outputs": exported["outputs"],
        "class_names": exported["label_names"],
    }


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, [text.encode()])
