"""The model card of a published run: Markdown with the front matter that the Hugging Face hub reads
(Hugging Face, "Model Cards", hub documentation; the idea: M. Mitchell et al., "Model Cards for
Model Reporting", 2019). It says what the run's files say, and of all else that it is not known.
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

from jaxcnn.runs.events import Record
from jaxcnn.runs.open import Run
from jaxcnn.runs.report.facts import fields
from jaxcnn.tasks.verdict import Verdict

MOST_CLASSES = 100  # that the card lists; preprocess.json has all
# what a row of a prediction has, and what the hub calls the task; the first that is there counts
PIPELINES = (
    ("objects", "object-detection"),
    ("segmentation", "image-segmentation"),
    ("points", "keypoint-detection"),
    ("image", "image-to-image"),
    ("text", "image-to-text"),
    ("top", "image-classification"),
    ("labels", "image-classification"),
    ("label", "image-classification"),
)
NO_SCORES = ("count", "temperature", "threshold")  # numbers of an evaluation that grade nothing
UNKNOWN = "not known"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a card is made of. `record`: run.json as it is published. `row`: what the model says of
    one example. `numbers`: in the weights file. `off`: the largest difference between the run's
    outputs and those of the published files, for one example. `onnx`: what `export` says of
    model.onnx, if there is one. `sample`: the answer of sample.json. `repo`: where on the hub it
    will lie.
    """

    run: Run
    record: Record
    step: int
    verdict: Verdict | None
    evaluation: Record | None
    summary: Record
    row: Record
    preparation: Record
    numbers: int
    off: float
    onnx: Record | None
    sample: Any
    license: str | None
    repo: str | None


def card(facts: Facts) -> str:
    """README.md."""
    parts = [
        front_matter(facts),
        f"# {_line(facts.record['experiment'])}",
        _what(facts),
        f"## Results\n\n{_results(facts)}",
        f"## Inputs and outputs\n\n{_inputs(facts)}",
        f"## Use\n\n{_use(facts)}",
        f"## Data\n\n{_data(facts)}",
        f"## Training\n\n{_training(facts)}",
        f"## Versions and hardware\n\n{_versions(facts)}",
        f"## What is not known\n\n{_unknown(facts)}",
    ]
    return "\n\n".join(parts) + "\n"


# ---- front matter ----------------------------------------------------------------------------


def front_matter(facts: Facts) -> str:
    """The YAML between the lines of dashes: license, library_name, tags, pipeline_tag where the
    hub has a word for the task, and the metrics as a model-index, if they are of these weights.
    """
    pipeline = _pipeline(facts)
    content: Record = {"license": facts.license or "unknown", "library_name": "jaxcnn"}
    content["tags"] = ["jaxcnn", "jax", "flax", *(["onnx"] if facts.onnx else [])]
    if pipeline:
        content["pipeline_tag"] = pipeline
    seen = facts.evaluation
    metrics = _numbers(seen["metrics"] if seen and seen["step"] == facts.step else {})
    if metrics:
        name = _dataset(facts)
        rows = [
            {"type": k, "value": v, "name": k} for k, v in metrics.items() if k not in NO_SCORES
        ]
        dataset = {"type": name, "name": name, "split": "validation"}
        result = {"task": {"type": pipeline or "other"}, "dataset": dataset, "metrics": rows}
        content["model-index"] = [{"name": facts.record["experiment"], "results": [result]}]
    return "---\n" + "\n".join(_yaml(content)) + "\n---"


def _yaml(value: Record | Iterable[object], *, indent: str = "") -> Iterable[str]:
    """Dicts, lists and plain values as the lines of a YAML block."""
    pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for name, item in pairs:
        head = f"{indent}- " if name is None else f"{indent}{name}:"
        if not isinstance(item, dict | list):
            yield f"{head.rstrip()} {_scalar(item)}"
        elif name is None:
            first, *rest = _yaml(item, indent=indent + "  ")
            yield from (f"{head}{first.lstrip()}", *rest)
        else:
            yield from (head, *_yaml(item, indent=indent + "  "))


def _scalar(value: object) -> str:
    """As YAML 1.1 and 1.2 read it alike: text in quotes, a float with a point."""
    if not isinstance(value, float):
        return json.dumps(value, ensure_ascii=not isinstance(value, str) or not value.isprintable())
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _pipeline(facts: Facts) -> str | None:
    pictures = [one for one in facts.preparation["inputs"].values() if "layout" in one]
    if len(pictures) != len(facts.preparation["inputs"]):
        return None
    for name, pipeline in PIPELINES:
        if name in facts.row:
            masks = name == "objects" and any("mask" in one for one in facts.row[name])
            return "image-segmentation" if masks else pipeline
    return None


def _numbers(metrics: Record) -> dict[str, int | float]:
    """The single numbers among metrics."""
    plain = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
    return {k: v for k, v in plain.items() if not isinstance(v, bool) and abs(v) < 2**1000}


def _dataset(facts: Facts) -> str:
    """What the data are called: their own `name`, else their class."""
    rendered = facts.record["rendered"]["data"]
    if not isinstance(rendered, dict):
        return UNKNOWN
    name, kind = rendered.get("name"), str(rendered.get("type", UNKNOWN))
    return name if isinstance(name, str) and name else kind.rpartition(":")[2]


# ---- sections --------------------------------------------------------------------------------


def _what(facts: Facts) -> str:
    model = _kind(facts.record["rendered"].get("model"))
    count = facts.summary.get("num_params")
    count = f"{count:,} parameters" if isinstance(count, int) else f"{facts.numbers:,} numbers"
    task = _kind(facts.record["rendered"].get("task"))
    which = "best" if facts.run.checkpoint == "best" else "last"
    return (
        f"`{model}` with {count}, trained for the task `{task}` by jaxcnn. These are the weights "
        f"of its {which} checkpoint, of step {facts.step:,}."
    )


def _results(facts: Facts) -> str:
    if facts.verdict is None or facts.evaluation is None:
        return "The run was not evaluated: how good the model is is not known."
    lines = [f"{facts.verdict.sentence()}."]
    if facts.verdict.no_better:
        lines[0] += " **No better than a blind answer.**"
    if facts.verdict.blind is None:
        lines.append("What an answer would score that does not look at the input is not known.")
    if facts.evaluation["step"] != facts.step:
        lines.append(
            f"The evaluation is of step {facts.evaluation['step']:,}, the weights of step "
            f"{facts.step:,}."
        )
    test = facts.summary.get("test") if facts.summary.get("step") == facts.step else None
    test = _numbers(test) if isinstance(test, dict) else {}
    rows = [
        (name, f"{value:.5g}", *((f"{test[name]:.5g}" if name in test else "–",) if test else ()))
        for name, value in _numbers(facts.evaluation["metrics"]).items()
    ]
    head = ("metric", "validation", *(("test",) if test else ()))
    lines += ["", *_table(head, rows)]
    lines += ["", "One run: the spread over seeds is not known."]
    return "\n".join(lines)


def _inputs(facts: Facts) -> str:
    lines = ["`preprocess.json` has this for programs.", ""]
    for name, one in facts.preparation["inputs"].items():
        shape = ", ".join(map(str, one["shape"]))
        text = f"- `{name}`: {one['dtype']} [{shape}]"
        if "layout" in one:
            low, high = one["range"]
            text += f", {one['layout']}, {one['colour']}, {low} to {high}; resized: {one['resize']}"
        lines.append(text)
    lines.append(f"- inside the model: {'; '.join(facts.preparation['inside_the_model'])}")
    for name, form in facts.preparation["outputs"].items():
        lines.append(f"- output `{name}`: {form.replace(chr(39), '')}")
    names = facts.preparation["class_names"]
    if names:
        shown = ", ".join(map(_line, names[:MOST_CLASSES]))
        more = f", … ({len(names)} in preprocess.json)" if len(names) > MOST_CLASSES else ""
        lines.append(f"- classes, in order: {shown}{more}")
    else:
        lines.append("- the classes, if there are any, have no names")
    return "\n".join(lines)


def _use(facts: Facts) -> str:
    sample = "np.load('sample.npz')"
    if facts.sample is None:
        one = next(iter(facts.preparation["inputs"]))
        sample = f"{{'{one}': …}}"
    parts = [
        "With JAX alone (any number of rows):",
        "```python\nimport jax, numpy as np\n\n"
        "model = jax.export.deserialize(bytearray(open('model.jax', 'rb').read()))\n"
        f"rows = dict({sample})\nprint(model.call(rows))\n```",
        *_use_onnx(facts.onnx, sample),
        *_use_jaxcnn(facts, sample),
        "As a start for training, in an experiment of your own (nothing of `code/` is run): "
        f'`weights="hf://{facts.repo or "OWNER/NAME"}"`.',
    ]
    if facts.sample is not None:
        parts.append("`sample.json` has the answer to `sample.npz`, the first validation example.")
    parts.append(
        f"Before this was published, one example was asked of the run, of `model.safetensors` and "
        f"of `model.jax`: their outputs differ by at most {facts.off:.2g}."
    )
    return "\n\n".join(parts)


def _use_jaxcnn(facts: Facts, sample: str) -> list[str]:
    """By files of pictures where the model takes one picture and nothing else, else by arrays."""
    inputs = [*facts.preparation["inputs"].values()]
    of_files = len(inputs) == 1 and "layout" in inputs[0]
    drawn = facts.sample is not None and inputs[0]["dtype"] == "uint8"
    given = ('"sample.png"' if drawn else '"picture.png"') if of_files else f"dict({sample})"
    numpy = "" if of_files else ", numpy as np"
    what = "takes picture files of any size and " if of_files else ""
    return [
        f"With jaxcnn, which {what}runs the code in `code/`, so look at it first:",
        f'```python\nimport jaxcnn{numpy}\n\nprint(jaxcnn.open(".").predict({given}))\n```',
    ]


def _use_onnx(onnx: Record | None, sample: str) -> list[str]:
    if onnx is None:
        return []
    text = "Before it was written, it was not compared with the run: it is larger than 2 GB."
    if onnx["checked"] is not None:
        text = (
            f"Before it was written, it and the run were asked {onnx['checked']['rows'][-1]} rows "
            f"of noise: they differ by {onnx['checked']['largest_difference']:.1e} of an output's "
            "largest number at most."
        )
    return [
        "With ONNX Runtime alone (any number of rows, float32):",
        "```python\nimport numpy as np, onnxruntime\n\n"
        "session = onnxruntime.InferenceSession('model.onnx')\n"
        "names = [output.name for output in session.get_outputs()]\n"
        f"rows = dict({sample})\nprint(dict(zip(names, session.run(names, rows))))\n```",
        text,
    ]


def _data(facts: Facts) -> str:
    data = facts.record["data"]
    sizes = ", ".join(f"{count:,} {split}" for split, count in data["sizes"].items() if count)
    rows = fields(facts.record["rendered"]["data"])
    lines = [f"`{_kind(facts.record['rendered']['data'])}`; examples: {sizes or UNKNOWN}.", ""]
    lines += _table(("field", "value"), rows)
    lines += ["", *(f"- `{n}` {dtype}{shape}" for n, shape, dtype in data["entries"])]
    return "\n".join(lines)


def _training(facts: Facts) -> str:
    rendered = {k: v for k, v in facts.record["rendered"].items() if k not in ("data", "type")}
    lines = [*_table(("field", "value"), fields(rendered))]
    summary = facts.summary
    if summary:
        lines += ["", f"It ended: {summary['verdict']}, after {summary['seconds']:.0f} s."]
    else:
        lines += ["", "It had not ended when this was published."]
    if "started_from" in facts.record:
        start = facts.record["started_from"]
        lines.append(f"It went on from step {start['step']:,} of the run {_line(start['run'])}.")
    for source, place in facts.record.get("weights", {}).items():
        lines.append(f"It started from {_line(source)}, which was {_line(place)}.")
    return "\n".join(lines)


def _versions(facts: Facts) -> str:
    seen = facts.record["environment"]
    rows = [("Python", seen.get("python", UNKNOWN))]
    rows += [(name, version or UNKNOWN) for name, version in seen.get("versions", {}).items()]
    commit = seen.get("commit") or UNKNOWN
    if seen.get("modified") is True:
        diff = (facts.run.folder / "code" / "jaxcnn.diff").is_file()
        commit += f", changed since{' (code/jaxcnn.diff)' if diff else ''}"
    rows.append(("commit of jaxcnn", commit))
    names = ("backend", "device", "num_devices", "processor")
    rows += [(name, seen[name]) for name in names if seen.get(name) not in (None, "")]
    return "\n".join(_table(("", ""), rows))


def _unknown(facts: Facts) -> str:
    lines = [] if facts.license else ["the licence of the weights"]
    lines += ["the licence of the data, and who is in them", "what the model is fit for"]
    lines += ["how it does on other data than these, and for whom it does worse"]
    return "\n".join(f"- {line}" for line in lines)


# ---- Markdown --------------------------------------------------------------------------------


def _kind(rendered: object) -> str:
    """The class or function that a rendering is of, to stand in a span of code."""
    found = rendered if isinstance(rendered, dict) else {}
    name = found.get("type") or found.get("partial") or found.get("function")
    return re.sub(r"[^\w.<>]", "", str(name).rpartition(":")[2]) if name else UNKNOWN


def _line(value: object) -> str:
    """Text that anybody may have written, as one line without markup."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(str(value).split()))


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(map(_line, row))} |" for row in rows)]
