"""The page of one run."""

import functools
from collections.abc import Sequence

import numpy as np

from jaxcnn.core.checks import OF_DESCENT, OF_RECORDS
from jaxcnn.errors import DataError, JaxcnnError
from jaxcnn.runs.open import Run
from jaxcnn.runs.report import diagrams, facts, network
from jaxcnn.runs.report.cards import cards
from jaxcnn.runs.report.charts import Series, panel
from jaxcnn.runs.report.examples import LOOKED_AT, Viewer
from jaxcnn.runs.report.page import Html, Section, details, join, note, number, table, tag
from jaxcnn.runs.report.parts import Parts
from jaxcnn.runs.report.pictures import Pictures
from jaxcnn.runs.report.reading import Reading, as_counts, as_number, read
from jaxcnn.tasks.verdict import Verdict

MOST_CLASSES = 200  # rows of a table of classes
MOST_CHARTS = 24
SHOWN = 8  # examples of each kind
NORMS = (("grad_norm", "gradient"), ("update_norm", "update"), ("param_norm", "parameters"))


def sections(
    run: Run, *, examples: int = LOOKED_AT, files_only: bool = False, album: Pictures | None = None
) -> Parts:
    """The sections of a single run's page."""
    reading, parts = read(run, files_only=files_only), Parts()
    album = Pictures() if album is None else album
    parts.add("Verdict", lambda: headline(reading), needed=True)
    parts.add("Curves", lambda: curves(reading), needed=True)
    parts.add("Metrics", lambda: metrics(reading), needed=True)
    parts.add("Classes", lambda: classes(reading))
    parts.add("Calibration", lambda: calibration(reading))
    if reading.missing is None:
        _of_the_model(reading, parts, examples=examples, album=album)
    else:
        parts.left_out.append(f"Examples, filters, feature maps, layers: {reading.missing}")
    parts.add("Experiment", lambda: facts.experiment(run.record), needed=True)
    kept, missing = facts.code(run)
    parts.sections.append(Section("Code", kept))
    parts.left_out += missing
    parts.add("How it was made", lambda: facts.circumstances(run), needed=True)
    if album.refused:
        parts.left_out.append(f"{album.refused} pictures: the page would be too long to be mailed")
    return parts


def _of_the_model(reading: Reading, parts: Parts, *, examples: int, album: Pictures) -> None:
    """What needs the checkpoint, and of this what needs the data."""
    run = reading.run
    e = run.standalone()
    example, layers = None, functools.cache(lambda: network.layers_of(e))
    try:
        viewer = Viewer(run)
        example = viewer.source.take(np.zeros(1, np.int32))
    except (JaxcnnError, OSError) as error:
        parts.left_out.append(f"Examples: {error}")
    else:
        parts.add("Examples", lambda: looked_at(viewer, album, most=examples))
    parts.add("Filters of the first layer", lambda: network.filters(layers(), run.state, album))

    def maps() -> Html:
        if example is None:
            raise DataError("they need an example")
        return network.feature_maps(e, layers(), run.state, example, album)

    parts.add("Feature maps of one example", maps)

    def all_layers() -> Html:
        return details("layer table", network.layer_table(layers()), opened=True)

    parts.add("Layers", all_layers)


# ---- parts -----------------------------------------------------------------------------------


def headline(reading: Reading) -> Html:
    """The verdict first: the metric, how sure it is, whether it is more than nothing."""
    verdict, summary, seen = reading.verdict, reading.run.summary, reading.record["environment"]
    parts = []
    if verdict is None:
        parts.append(tag("p", "no evaluation", class_="headline"))
        parts.append(tag("p", "The run has not been evaluated, so nothing is known of its worth."))
    else:
        value = "no value" if verdict.value is None else number(verdict.value)
        parts.append(tag("p", f"{verdict.metric} {value}", class_="headline"))
        parts.append(tag("p", _how_sure(reading, verdict)))
        if verdict.no_better:
            words = "No better than a blind answer: the network has learned nothing that shows."
            parts.append(tag("p", tag("b", words, class_="bad"), class_="warning"))
    parts.append(tag("p", _ended(reading)))
    seconds = as_number(summary.get("seconds"))
    if seconds is None:
        seconds = as_number(reading.records[-1]["seconds"]) if reading.records else 0.0
    device = seen.get("device") or seen.get("backend") or "?"
    processor = f", {seen['processor']}" if seen.get("processor") else ""
    count = as_number(summary.get("num_params"))
    parameters = "" if count is None else f"{int(count):,} parameters; "
    parts.append(tag("p", f"{parameters}{number(seconds)} s of training on {device}{processor}"))
    return join(parts)


def _how_sure(reading: Reading, verdict: Verdict) -> Html:
    which = "n examples unknown" if verdict.count is None else f"n = {verdict.count:,} examples"
    text = f"on validation data, {which}"
    if verdict.interval is not None:
        low, high = verdict.interval
        text += f", 95 % interval {low:.4f} to {high:.4f} (Wilson)"
    record = reading.evaluation
    assert record is not None  # the verdict is of it
    text += f"; step {record['step']:,}, epoch {record['epoch']:.4g}. "
    blind = verdict.blind
    if blind is None and reading.missing is not None:
        text += "Not compared with a blind answer, since the experiment was not opened."
    elif blind is None:
        unknown = "What a blind answer would score is not known for this task and metric."
        text += f"No blind answer: {verdict.why_not}." if verdict.why_not else unknown
    else:
        text += f"Blind ({blind.answer}): {number(blind.value)}."
    return tag("span", text)


def _ended(reading: Reading) -> str:
    summary = reading.run.summary
    step = reading.records[-1]["step"] if reading.records else 0
    if not summary:
        return f"Interrupted: the run has not ended; its last record is of step {step:,}."
    end = f"{summary['verdict']}, {summary['step']:,} steps, {number(summary['epoch'])} epochs"
    return f"{end}." if summary["completed"] else f"Interrupted: {end}; not all that was asked for."


def curves(reading: Reading) -> Html:
    """Loss, metrics, learning rate, norms, speed, and whatever else was logged."""
    if not reading.records:
        raise DataError("nothing was logged")
    wanted = [("loss", _both(reading, "loss", "loss"))]
    metric = reading.verdict.metric if reading.verdict else None
    if metric is not None and metric != "loss":
        blind = Series("blind", reading.points("eval", f"blind_{metric}"), 2, dashed=True)
        wanted.append((metric, [*_both(reading, metric, metric), blind]))
    rate = Series("learning rate", reading.points("train", "learning_rate"))
    norms = [
        Series(words, reading.points("train", name), i, i == 2)
        for i, (name, words) in enumerate(NORMS)
    ]
    speed = Series("images/s", reading.points("train", "images_per_second"))
    wanted += [("learning rate", [rate]), ("norms", norms), ("images/s", [speed])]
    rest, dropped = _others(reading, metric)
    more = details("other numbers", panel(rest[4:])) if rest[4:] else None
    cut = note(f"{dropped} more numbers were logged") if dropped > 0 else None
    return join([panel([*wanted, *rest[:4]]), more, cut])


def _both(reading: Reading, train: str, evaluation: str) -> list[Series]:
    return [
        Series("training", reading.points("train", train), 0, dashed=True),
        Series("validation", reading.points("eval", evaluation), 1),
    ]


def _others(reading: Reading, metric: str | None) -> tuple[list[tuple[str, list[Series]]], int]:
    """((title, lines) of the other numbers that change, how many more there are)."""
    names: dict[str, None] = {}
    for record in reading.records:
        own = record["metrics"] if record["kind"] == "eval" else record
        names.update(dict.fromkeys(name for name in own if isinstance(name, str)))
    taken = {*OF_RECORDS, *OF_DESCENT, "metrics", "count", "temperature", "why", "at", metric}
    found = []
    for name in names:
        if name in taken or name.startswith("blind_"):
            continue
        series = _both(reading, name, name)
        if len({y for one in series for _, y in one.points}) > 1:  # else the metrics tell
            found.append((name, series))
    return found[:MOST_CHARTS], len(found) - MOST_CHARTS


def metrics(reading: Reading) -> Html | None:
    """All single numbers of the evaluation; of the test split beside it where there is one, of the
    same step.
    """
    summary, record = reading.run.summary, reading.evaluation
    same = record is not None and record["step"] == summary.get("step")
    test = summary.get("test") or {} if same else {}
    rows = [
        (name, number(value), *((number(as_number(test.get(name))),) if test else ()))
        for name, value in reading.metrics.items()
        if as_number(value) is not None or value is None
    ]
    head = ("metric", "validation", *(("test",) if test else ()))
    return table(head, rows) if rows else None


def classes(reading: Reading) -> Html | None:
    """The confusion matrix and the table of the classes."""
    parts = []
    matrix = as_counts(reading.metrics.get("confusion"))
    if matrix is not None:
        names = [reading.name(i, of=len(matrix)) for i in range(len(matrix))]
        parts.append(diagrams.confusion(matrix, names))
    columns = {
        name.removeprefix("per_class_"): values
        for name, values in reading.metrics.items()
        if name.startswith("per_class_") and isinstance(values, list)
    }
    if columns:
        size = max(len(values) for values in columns.values())
        rows = [
            (
                reading.name(i, of=size),
                *(number(v[i]) if i < len(v) else "–" for v in columns.values()),
            )
            for i in range(min(size, MOST_CLASSES))
        ]
        parts.append(table(("class", *columns), rows))
        if size > MOST_CLASSES:
            parts.append(note(f"{size - MOST_CLASSES:,} more classes"))
    return join(parts) if parts else None


def calibration(reading: Reading) -> Html | None:
    """The reliability diagram, and the calibration error."""
    rows = reading.metrics.get("reliability")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    found = diagrams.reliability(rows)
    error = as_number(reading.metrics.get("ece"))
    words = None if error is None else note(f"expected calibration error {error:.4f}")
    return None if found is None else join([found, words])


def looked_at(viewer: Viewer, album: Pictures, *, most: int) -> Html:
    """Some examples, the worst, the most confident wrong ones."""
    seen = viewer.see(most=most)
    count = len(seen.indices)
    if count < seen.size:
        words = f"{count:,} of the {seen.size:,} validation examples were looked at, evenly spaced."
    else:
        whole = f"All {count:,} validation examples were looked at."
        words = whole if count != 1 else "There is one validation example."
    parts: list[Html] = [note(words)]
    if viewer.changed:
        parts.append(tag("p", f"Of this run {viewer.changed}.", class_="warning"))

    def show(title: str, chosen: Sequence[int] | np.ndarray) -> None:
        shown = cards(viewer, seen, np.asarray(chosen), album)
        parts.append(join([tag("h3", title), shown]))

    wrong = seen.confident_wrong(SHOWN)
    if seen.right is not None:
        amount = int(np.sum(~seen.right))
        parts.append(note(f"{amount:,} of them were given a wrong class."))
    if len(wrong):
        show("Most confident and wrong", wrong)
    show("Largest loss", seen.worst(SHOWN))
    if seen.right is None and count > SHOWN:  # else those were all
        show("As they come", np.linspace(0, count - 1, SHOWN).astype(int))
    return join(parts)
