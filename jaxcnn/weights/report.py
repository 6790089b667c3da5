"""What became of a source of weights: what was filled and what was not, in names and in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxcnn.errors import ConfigError


@dataclass(frozen=True)
class WeightReport:
    """What `load_weights` did, by the names of leaves.

    loaded: our leaves that were filled. unmatched: ours without a source (they keep their values).
    unused: source names that no rule placed. adapted: first layers converted to another channel
    count. new_head: leaves of the head that keep their values because the class counts differ.
    share: of the numbers in `params`, those that were filled. averaged: whether a moving average of
    the weights was taken. prefix: what stood before the source's names. beside: what else the
    source holds, with the number of arrays. others: prefixes behind which as much fits.
    """

    loaded: tuple[str, ...]
    unmatched: tuple[str, ...]
    unused: tuple[str, ...]
    adapted: tuple[str, ...]
    new_head: tuple[str, ...]
    share: float = 0.0
    averaged: bool = False
    prefix: str = ""
    beside: tuple[tuple[str, int], ...] = ()
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        of = " (moving average of the weights)" if self.averaged else ""
        below = f", named {self.prefix}… in the file" if self.prefix else ""
        lines = [
            f"{len(self.loaded)} arrays loaded{of}, {100 * self.share:.3g} % of the model's "
            f"parameters{below}"
        ]
        titles = {
            "unmatched": "not in the file, start fresh",
            "unused": "not in the model",
            "new_head": "of another number of classes, start fresh",
        }
        for title in ("unmatched", "unused", "adapted", "new_head"):
            names = getattr(self, title)
            if names:
                meaning = f"; {titles[title]}" if title in titles else ""
                shown = first(names)
                lines.append(f"{title.replace('_', ' ')} ({len(names)}): {shown}{meaning}")
        if self.others:
            lines.append(f"as much fits behind {first(self.others)}; that was not taken")
        if self.beside:
            shown = first([f"{name} ({count})" for name, count in self.beside])
            lines.append(f"left out beside them: {shown}")
        return "\n".join(lines)


def first(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def check_filled(
    source: str, names: Iterable[str], report: WeightReport, *, head: str, least: float
) -> None:
    """ConfigError where fewer than the share `least` of the parameters `names` were filled, those
    of the layer `head` apart: too little for a start that is not random.
    """
    body = [name for name in names if f"/{head}/" not in f"/{name}"]
    loaded = set(report.loaded)
    missing = [name for name in body if name not in loaded]
    done = len(body) - len(missing)
    if done >= least * len(body):
        return
    unused = f"; not in the model ({len(report.unused)}): {first(report.unused)}"
    raise ConfigError(
        f"weights: {source!r} fills {done} of the {len(body)} arrays of this model's parameters "
        f"({head!r} apart), {100 * report.share:.3g} % of all its numbers. Not in the file "
        f"({len(missing)}): {first(missing)}{unused if report.unused else ''}. Below "
        f"{100 * least:.3g} % of the arrays a run would start from chance unawares: choose "
        "the model that these weights belong to; or load what there is by `initialize=` with "
        "jaxcnn.weights.load.load_weights, which asks for no share"
    )
