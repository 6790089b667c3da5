"""The page of a comparison."""

from collections.abc import Sequence
from pathlib import Path

from jaxcnn.inspect.contact_sheet import described, pictures
from jaxcnn.inspect.drawing import draw, to_image
from jaxcnn.runs.open import Run
from jaxcnn.runs.report import page
from jaxcnn.runs.report.cards import is_drawn, say
from jaxcnn.runs.report.charts import Series, panel
from jaxcnn.runs.report.compare import Comparison, letter_of, more_than_shown, pair_words
from jaxcnn.runs.report.examples import has_pictures
from jaxcnn.runs.report.page import Html, dotted, join, note, number, table, tag
from jaxcnn.runs.report.parts import Parts
from jaxcnn.runs.report.pictures import Pictures

CURVES = (("train", "loss"), ("eval", "loss"), ("train", "learning_rate"), ("train", "grad_norm"))


def write_comparison(runs: Sequence[Run], found: Comparison, path: Path | str) -> list[str]:
    """Write the page; sentences on what is left out. Errors: ResourceError; ConfigError for a
    folder.
    """
    page.refuse_folder(Path(path))
    parts = Parts()
    parts.add("Runs", lambda: _runs(found), needed=True)
    parts.add("What differs", lambda: _settings(found), needed=True)
    parts.add("Metrics", lambda: _metrics(found), needed=True)
    parts.add("Curves", lambda: _curves(found))
    if found.unseen is None:
        parts.add("One against the other", lambda: _pairs(found), needed=True)
        parts.add("Examples on which they disagree", lambda: _apart(found))
    else:
        parts.left_out.append(f"Answers to single examples: {found.unseen}")
    names = [run.folder.name for run in runs]
    content = page.document(f"{' · '.join(names)[:200]}", parts.sections, left_out=parts.left_out)
    page.write(Path(path), content)
    return parts.left_out


def _letters(found: Comparison) -> list[str]:
    return [letter_of(i) for i in range(len(found.readings))]


def _runs(found: Comparison) -> Html:
    """A paragraph each: as columns of a table their words would be too narrow for a phone."""
    parts = []
    for letter, reading in zip(_letters(found), found.readings, strict=True):
        verdict = reading.verdict
        value = "no evaluation" if verdict is None else verdict.sentence()
        blind = tag("b", " No better than blind.", class_="bad")
        place = f" {reading.record['experiment']}, {reading.run.folder}"
        shown = blind if verdict is not None and verdict.no_better else None
        parts.append(tag("p", tag("b", letter), place, tag("br"), value, shown))
    return join(parts)


def _settings(found: Comparison) -> Html:
    rows = [
        (dotted(name), *("–" if v is None else v for v in values))
        for name, values in found.settings.items()
    ]
    if not rows:
        return note("Nothing: the experiments are the same, field by field.")
    return table(("field", *_letters(found)), rows, words=1 + len(found.readings))


def _metrics(found: Comparison) -> Html:
    rows = [(name, *map(number, values)) for name, values in found.metrics.items()]
    verdicts = [r.verdict for r in found.readings]
    above = []
    for metric in dict.fromkeys(v.metric for v in verdicts if v and v.interval):  # of each its own
        own = [v.interval if v and v.metric == metric else None for v in verdicts]
        shown = ["–" if i is None else f"{i[0]:.4f} to {i[1]:.4f}" for i in own]
        above.append((f"{metric}, 95 % interval", *shown))
    return table(("metric", *_letters(found)), [*above, *rows])


def _curves(found: Comparison) -> Html:
    metrics = {r.verdict.metric: None for r in found.readings if r.verdict}
    wanted = []
    for kind, name in (*CURVES, *(("eval", m) for m in metrics if m != "loss")):
        series = [
            Series(letter, reading.points(kind, name), i)
            for i, (letter, reading) in enumerate(zip(_letters(found), found.readings, strict=True))
        ]
        where = "training" if kind == "train" else "validation"
        wanted.append((f"{name.replace('_', ' ')}, {where}", series))
    return panel(wanted)


def _pairs(found: Comparison) -> Html:
    assert found.seen is not None
    count = note(f"On {len(found.seen[0].indices):,} examples that all of them were evaluated on.")
    changed = [tag("p", text, class_="warning") for text in found.changed]
    return join([changed, count, [tag("p", pair_words(pair)) for pair in found.pairs]])


def _apart(found: Comparison) -> Html:
    if found.seen is None or not len(found.apart):
        return note("They say the same of every example.")
    seen, album = found.seen[0], Pictures()
    indices = seen.indices[found.apart]
    said, batch = [], {}
    for viewer in found.viewers:
        rows, batch = viewer.rows(indices)
        said.append(rows)
    names = tuple(found.viewers[0].e.data.label_names)
    pixels = pictures(batch) if has_pictures(batch) else None
    cards = []
    for i, row in enumerate(found.apart):
        true = described(batch, i, names=names).get("text")
        lines = [tag("b", f"#{indices[i]:,}"), f" true: {true}" if true else None]
        shown = []
        if pixels is not None and not is_drawn(said[0][i]):
            shown.append(album.add(to_image(pixels[i]), f"example {indices[i]}"))
        for letter, rows, other in zip(_letters(found), said, found.seen, strict=True):
            loss = number(other.loss[row].item())
            lines += [tag("br"), f"{letter}: {say(rows[i])} (loss {loss})"]
            if pixels is not None and is_drawn(rows[i]):
                what = {k: v for k, v in rows[i].items() if k != "text"}
                shown.append(album.add(draw(pixels[i], what), f"{letter} on {indices[i]}"))
        pair = tag("div", [tag("div", s) for s in shown if s is not None], class_="pair")
        cards.append(tag("figure", pair, tag("figcaption", lines)))
    drawn = any(is_drawn(row) for rows in said for row in rows)
    shown = tag("div", cards, class_="pictures drawn" if drawn else "pictures")
    more = more_than_shown(found)
    return join([shown, note(more) if more else None])
