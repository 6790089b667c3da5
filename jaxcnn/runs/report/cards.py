"""Examples as cards: the picture, what is true, what was said."""

from typing import Any

import numpy as np

from jaxcnn.core.protocols import Batch
from jaxcnn.inspect.contact_sheet import described, pictures
from jaxcnn.inspect.drawing import draw, to_image
from jaxcnn.runs.answers import as_json, sentence
from jaxcnn.runs.report.examples import Seen, Viewer, has_pictures
from jaxcnn.runs.report.page import Html, number, table, tag
from jaxcnn.runs.report.pictures import Pictures

DRAWN = ("objects", "segmentation", "points", "image")  # what needs a picture of its own
NAMED = 3  # classes that a card names


def cards(viewer: Viewer, seen: Seen, chosen: np.ndarray, album: Pictures) -> Html:
    """The chosen rows of what was seen, drawn; as a table where there are no pictures."""
    said, batch = viewer.rows(seen.indices[chosen])
    names = tuple(viewer.e.data.label_names)
    true = [described(batch, i, names=names) for i in range(len(chosen))]
    words = [
        (
            f"#{seen.indices[row]:,}",
            true[i].get("text", ""),
            say(said[i]),
            number(seen.loss[row].item()),
        )
        for i, row in enumerate(chosen)
    ]
    if not has_pictures(batch):
        return table(("example", "true", "said", "loss"), words, words=3)
    pixels = pictures(batch)
    # what the model gets in training alone is not what a picture was made from
    given = set(viewer.e.task.inputs) - set(viewer.e.task.training_inputs)
    begun = has_pictures({name: x for name, x in batch.items() if name in given})
    alone = not begun and "image" in said[0]  # one picture a card
    return tag(
        "div",
        [
            _card(pixels[i], true[i], said[i], words[i], album, _target(batch, i), begun=begun)
            for i in range(len(chosen))
        ],
        class_="pictures drawn" if any(map(is_drawn, said)) and not alone else "pictures",
    )


def _target(batch: Batch, row: int) -> np.ndarray | None:
    """The picture that was to be made."""
    if "target" not in batch or np.ndim(batch["target"]) != 4:
        return None
    return pictures({"image": batch["target"][row : row + 1]})[0]


def _card(
    pixels: np.ndarray,
    true: dict[str, Any],
    said: dict[str, Any],
    words: tuple[str, str, str, str],
    album: Pictures,
    target: np.ndarray | None,
    *,
    begun: bool,
) -> Html:
    place, truth, answer, loss = words
    shown = []
    if "image" in said:
        before = [("before", to_image(pixels))] if begun else []
        shown = [*before, ("after" if begun else "made", to_image(said["image"]))]
        shown += [] if target is None else [("true", to_image(target))]
    elif is_drawn(said):
        shown = [
            (name, draw(pixels, _drawable(what))) for name, what in (("true", true), ("said", said))
        ]
    else:
        shown = [("", to_image(pixels))]
    figures = []
    for name, picture in shown:
        element = album.add(picture, f"example {place} {name}".strip())
        caption = tag("figcaption", name) if name else None
        figures.append(tag("div", element or tag("p", "(no room)", class_="note"), caption))
    lines = [tag("b", place), f" loss {loss}"]
    lines += [tag("br"), f"true: {truth}"] if truth else []
    lines += [tag("br"), f"said: {answer}"] if answer else []
    return tag("figure", tag("div", figures, class_="pair"), tag("figcaption", lines))


def is_drawn(said: dict[str, Any]) -> bool:
    """Whether there is anything to be drawn of what was said."""
    return any(name in said for name in DRAWN)


def _drawable(what: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in what.items() if name != "text"}


def say(row: dict[str, Any]) -> str:
    """What was said of an example, in words."""
    brief = {**row, **({"top": row["top"][:NAMED]} if "top" in row else {})}
    ready = as_json({k: v for k, v in brief.items() if k != "image"})
    if "segmentation" in ready:
        shares = sorted(ready["segmentation"].items(), key=lambda pair: -pair[1])
        ready["segmentation"] = dict(shares[:NAMED])
    return sentence(ready)
