"""The classes of faults, their shares of the time, and the table of what came of them."""

from collections.abc import Callable
from typing import NamedTuple

from tests.faults import asked, damage, kills, lines, settings, starved
from tests.faults.world import Tally, World


class Class(NamedTuple):
    """`call` puts in a few faults and counts them; `weight`: its share of the time."""

    call: Callable[[World, Tally], None]
    weight: float


CLASSES = {
    "kill -9 of training": Class(kills.training, 10),
    "kill -9 of a save": Class(kills.saving, 3),
    "damaged checkpoint": Class(damage.checkpoints, 1),
    "resealed header": Class(damage.resealed, 0.5),
    "misplaced checkpoint": Class(damage.misplaced, 0.1),
    "damaged compilation cache": Class(damage.compilation_cache, 1),
    "signal": Class(asked.signals, 5),
    "signal to a program": Class(asked.programs, 3),
    "disk fills up": Class(starved.disk, 4),
    "file size limit": Class(starved.file_size, 2),
    "read-only folder": Class(starved.read_only, 0.3),
    "output": Class(starved.output, 1),
    "memory limit": Class(starved.memory, 1),
    "two starts": Class(starved.two_starts, 2),
    "random settings": Class(settings.settings, 5),
    "random command lines": Class(lines.lines, 3),
    "odd paths": Class(starved.odd_paths, 0.5),
}


def pick(
    chosen: dict[str, Class], tallies: dict[str, Tally], rounds: dict[str, int], most: int | None
) -> str | None:
    """The class that has had least of its share; None once each has had `most` rounds."""
    open_ = [name for name in chosen if most is None or rounds[name] < most]
    return min(open_, key=lambda name: tallies[name].seconds / chosen[name].weight, default=None)


def table(tallies: dict[str, Tally]) -> str:
    """Rows of counts, then a sentence for each fault after which not all was as promised."""
    head = ("fault", "tried", "held", "lost", "other bits", "untidy", "runs", "worst s", "codes")
    rows: list[tuple[str, ...]] = [head]
    for name, t in tallies.items():
        codes = " ".join(f"{code}:{count}" for code, count in sorted(t.codes.items()))
        numbers = (t.tried, t.held, len(t.lost), len(t.different), len(t.untidy), t.runs)
        rows.append((name, *map(str, numbers), f"{t.latency:.2f}" if t.latency else "-", codes))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for name, t in tallies.items():
        for kind in ("lost", "different", "untidy"):
            lines += [f"{kind}: {name}: {text}" for text in getattr(t, kind)[:20]]
    return "\n".join(lines)
