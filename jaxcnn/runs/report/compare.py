"""What differs between runs: their experiments, their metrics with intervals, and, on the examples
that all of them were evaluated on, who is right where.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.core import rendering
from jaxcnn.errors import ConfigError, JaxcnnError
from jaxcnn.metrics.shares import mcnemar, paired_difference
from jaxcnn.runs.open import Run
from jaxcnn.runs.report.examples import Seen, Viewer
from jaxcnn.runs.report.facts import fields
from jaxcnn.runs.report.page import number
from jaxcnn.runs.report.reading import Reading, as_number, read

NEAR = 40  # characters on either side of where two long texts differ
NAMED = 20  # examples of each kind that are named
ABSENT = "–"  # of a field that a run does not have


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    readings: of each run. settings: {field: value in each run} of those that differ, None where a
    run has no such field. metrics: {name: value in each run}. seen: what each run says of the same
    examples, or None, and `unseen` says why. pairs: one row for each two runs. apart: rows of
    `seen` on which the runs disagree, those first on which they differ most.
    """

    readings: list[Reading]
    settings: dict[str, list[str | None]]
    metrics: dict[str, list[float | None]]
    seen: list[Seen] | None
    viewers: list[Viewer]
    unseen: str | None
    pairs: list[dict[str, Any]]
    apart: np.ndarray

    @property
    def changed(self) -> list[str]:
        """A sentence for each run whose data are no longer those of its training."""
        texts = [viewer.changed for viewer in self.viewers]
        return [f"of run {letter_of(i)} {text}" for i, text in enumerate(texts) if text]

    @property
    def disagree(self) -> int | None:
        """On how many examples they say different labels; None where the task says none."""
        rows = _disagreeing(self.seen) if self.seen else None
        return None if rows is None else len(rows)

    def to_json(self) -> dict[str, Any]:
        """In JSON's types. An example is named by its place in the validation split."""
        rows = []
        for reading in self.readings:
            verdict = reading.verdict
            rows.append(
                {
                    "run": str(reading.run.folder),
                    "experiment": reading.record["experiment"],
                    "step": reading.evaluation["step"] if reading.evaluation else None,
                    "seconds": as_number(reading.run.summary.get("seconds")),
                    "metric": verdict.metric if verdict else None,
                    "value": verdict.value if verdict else None,
                    "count": verdict.count if verdict else None,
                    "interval95": verdict.interval if verdict else None,
                    "blind": verdict.blind.value if verdict and verdict.blind else None,
                }
            )
        found: dict[str, Any] = {"runs": rows, "settings": self.settings, "metrics": self.metrics}
        found["pairs"], found["not_compared"] = self.pairs, self.unseen
        found["changed"] = self.changed
        if self.seen:
            found["examples"] = len(self.seen[0].indices)
            found["disagree"] = self.disagree  # of which these are the first
            found["disagreements"] = [self._row(row) for row in self.apart]
        return found

    def _row(self, row: int) -> dict[str, Any]:
        assert self.seen is not None
        first = self.seen[0]
        out: dict[str, Any] = {"example": int(first.indices[row])}
        if first.truth is not None:
            out["true"] = int(first.truth[row])
            out["said"] = [None if s.label is None else int(s.label[row]) for s in self.seen]
        return out | {"loss": [as_number(s.loss[row].item()) for s in self.seen]}


def compare(runs: Sequence[Run], *, examples: int = 10_000) -> Comparison:
    """Compare two or more single runs; the answers to `examples` of the validation examples (all,
    or so many at even distances).

    Where the examples cannot be compared (data that are gone, or are not the same in all runs),
    the rest is, and `unseen` says why.
    Errors: ConfigError for fewer than two runs, for a sweep, and for no examples.
    """
    if len(runs) < 2:
        raise ConfigError(f"compare: {len(runs)} run given; a comparison needs two runs at least")
    if examples < 1:
        raise ConfigError(f"--examples {examples}: look at 1 at least")
    for run in runs:
        if run.is_sweep:
            raise ConfigError(
                f"{run.folder}: is a sweep; compare its replicas, such as "
                f"{run.folder / 'replicas' / '0'}, or see its report"
            )
    readings = [read(run) for run in runs]
    try:
        viewers, seen = _see(runs, examples)
        unseen = None
    except (JaxcnnError, OSError) as error:
        viewers, seen, unseen = [], None, str(error)
    pairs = _pairs(seen) if seen else []
    apart = _apart(seen) if seen else np.empty(0, np.int64)
    settings, metrics = differing([r.record["rendered"] for r in readings]), _metrics(readings)
    return Comparison(readings, settings, metrics, seen, viewers, unseen, pairs, apart)


def _see(runs: Sequence[Run], examples: int) -> tuple[list[Viewer], list[Seen]]:
    """Errors: ConfigError for runs that were not evaluated on the same examples."""
    viewers = [Viewer(run) for run in runs]
    sizes = [len(viewer.source) for viewer in viewers]
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"the runs were evaluated on different examples ({', '.join(map(str, sizes))} of them)"
        )
    seen = [viewer.see(most=examples) for viewer in viewers]
    for run, other in zip(runs[1:], seen[1:], strict=True):
        wrong = [
            i for i, (a, b) in enumerate(zip(seen[0].digests, other.digests, strict=True)) if a != b
        ]
        if wrong:
            raise ConfigError(
                f"the runs were evaluated on different examples: {len(wrong):,} of "
                f"{len(other.indices):,} are others in {run.folder} than in {runs[0].folder}, the "
                f"first is number {other.indices[wrong[0]]}"
            )
    return viewers, seen


def differing(rendered: Sequence[Any]) -> dict[str, list[str | None]]:
    """{field: its value in each rendering} of the fields that differ: as a page of one run has it,
    but with the module, or from where long ones differ, if that would look the same.
    """
    whole = [{k: str(v) for k, v in rendering.fields(one, modules=True)} for one in rendered]
    short = [dict(fields(one)) for one in rendered]
    found = {}
    for name in dict.fromkeys(name for one in whole for name in one):
        values, shown = ([one.get(name) for one in each] for each in (whole, short))
        if len(set(values)) > 1:
            apart = len(set(shown)) == len(set(values))
            found[name] = shown if apart else _from_where_they_differ(values)
    return found


def _from_where_they_differ(values: Sequence[str | None]) -> list[str | None]:
    """Long texts less most of the beginning that they have in common."""
    texts = [v for v in values if v is not None]
    columns = enumerate(zip(*texts, strict=False))  # as far as the shortest reaches
    differ = (i for i, letters in columns if len(set(letters)) > 1)
    start = next(differ, min(map(len, texts))) - NEAR
    return [v if v is None or start <= 0 else f"…{v[start : start + 2 * NEAR]}…" for v in values]


def _metrics(readings: Sequence[Reading]) -> dict[str, list[float | None]]:
    """The numbers of the evaluations, by name in their order."""
    names = dict.fromkeys(name for r in readings for name in r.metrics)
    found = {name: [as_number(r.metrics.get(name)) for r in readings] for name in names}
    return {name: values for name, values in found.items() if any(v is not None for v in values)}


def _pairs(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Of each two runs (by their places from 0) how far their losses lie apart, and McNemar's test
    where the task says right or wrong.
    """
    out = []
    for i, j in itertools.combinations(range(len(seen)), 2):
        first, second = seen[i].right, seen[j].right
        pair = {"first": i, "second": j, "loss": paired_difference(seen[i].loss, seen[j].loss)}
        test = mcnemar(first, second) if first is not None and second is not None else {}
        out.append({**pair, **test})
    return out


def _apart(seen: Sequence[Seen]) -> np.ndarray:
    """Up to NAMED rows: of tasks that say a label, those where the runs say different ones; of
    others all; those first whose losses differ most.
    """
    losses = np.stack([s.loss for s in seen]).astype(np.float64)
    losses[~np.isfinite(losses)] = 1e30  # NaN, too: far from any that is finite
    spread = losses.max(0) - losses.min(0)
    rows = _disagreeing(seen)
    rows = np.arange(len(spread)) if rows is None else rows
    return rows[np.argsort(-spread[rows], kind="stable")][:NAMED]


def _disagreeing(seen: Sequence[Seen]) -> np.ndarray | None:
    """The rows of which they say different labels; None where one says no labels."""
    labels = [s.label for s in seen if s.label is not None]
    if len(labels) < len(seen):
        return None
    return np.flatnonzero((np.stack(labels) != labels[0]).any(0))


def more_than_shown(found: Comparison) -> str | None:
    """How many more examples they disagree on than `apart` has, in words."""
    more = (found.disagree or 0) - len(found.apart)
    return f"… and {more:,} more on which they disagree" if more > 0 else None


# ---- in words --------------------------------------------------------------------------------


def text_of(found: Comparison) -> list[str]:
    """The lines of a table."""
    letters = [letter_of(i) for i in range(len(found.readings))]
    lines = []
    for letter, reading in zip(letters, found.readings, strict=True):
        verdict = reading.verdict
        shown = "no evaluation" if verdict is None else verdict.sentence()
        lines += [f"{letter}: {reading.run.folder}", f"   {shown}"]
        if verdict is not None and verdict.no_better:
            lines.append("   no better than a blind answer")
    lines += ["", *_columns("settings that differ", letters, found.settings)]
    numbers = {name: [number(v) for v in values] for name, values in found.metrics.items()}
    lines += ["", *_columns("metric", letters, numbers)]
    lines.append("")
    if found.unseen is not None:
        return [*lines, f"answers not compared: {found.unseen}"]
    assert found.seen is not None
    lines += [f"warning: {text}" for text in found.changed]
    lines.append(f"on {len(found.seen[0].indices):,} examples of validation:")
    lines += [f"  {pair_words(pair)}" for pair in found.pairs]
    names = found.readings[0]
    for row in found.to_json().get("disagreements", ()):
        losses = ", ".join(number(v) for v in row["loss"])
        if "true" in row:
            said = ", ".join(names.name(v) for v in row["said"] if v is not None)
            lines.append(
                f"  #{row['example']}: {names.name(row['true'])}, said {said}; losses {losses}"
            )
        else:
            lines.append(f"  #{row['example']}: losses {losses}")
    more = more_than_shown(found)
    return [*lines, f"  {more}"] if more else lines


def letter_of(place: int) -> str:
    """What a run is called in a comparison: A, B, …, Z, 27, 28, …"""
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def pair_words(pair: dict[str, Any]) -> str:
    """The losses of two runs, and McNemar's test, in words."""
    first, second = letter_of(pair["first"]), letter_of(pair["second"])
    words = _loss_words(first, second, pair["loss"])
    if "p" not in pair:
        return f"{words}; no test of right and wrong: answers of this task are not simply either"
    return f"{words}; " + (
        f"{first} alone right {pair['first_only']:,}, {second} alone right "
        f"{pair['second_only']:,}, both {pair['both']:,}, neither {pair['neither']:,}; McNemar's "
        f"exact test p = {pair['p']:.3g}"
    )


def _loss_words(first: str, second: str, loss: dict[str, Any]) -> str:
    if loss["mean"] is None:
        return f"no loss of {first} and {second} is finite"
    words = f"loss of {second} less that of {first} {loss['mean']:+.4g}"
    if loss["interval95"] is not None:
        low, high = loss["interval95"]
        words += f" (95 % interval {low:+.4g} to {high:+.4g}, n = {loss['examples']:,})"
    left_out = f", {loss['left_out']:,} that are not finite left out" if loss["left_out"] else ""
    return words + left_out


def _columns(head: str, letters: Sequence[str], rows: dict[str, Any]) -> list[str]:
    if not rows:
        return [f"{head}: none"]
    texts = [
        (name, *(ABSENT if v is None else str(v)[:32] for v in values))
        for name, values in rows.items()
    ]
    widths = [max(map(len, column)) for column in zip((head, *letters), *texts, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [(head, *letters), *texts]
    ]
