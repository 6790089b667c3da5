"""`runs`: the runs below a folder: state, metric, steps, date."""

import json
import sys
from pathlib import Path
from typing import Any

EXAMPLE = "python launch.py runs runs"


def add_arguments(parser: Any) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="where runs lie, or a run or sweep itself (default: runs); their code is not executed",
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def main(args: Any) -> int:
    """Exit code 0 whatever was left out, which is said."""
    from jaxcnn.runs.listing import runs_in

    rows, left_out = runs_in(args.folder)
    if args.json:
        print(json.dumps({"runs": rows, "left_out": left_out}))
        return 0
    for line in table(rows):
        print(line)
    if not rows:
        print(f"{args.folder}: no runs")
    for text in left_out:
        print(f"left out: {text}", file=sys.stderr)
    return 0


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines with a head, columns as wide as what stands in them; nothing for no rows."""
    head = ("run", "experiment", "state", "metric", "value", "n", "step", "began")
    shown = [head, *map(_cells, rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
    right = {"value", "n", "step"}

    def line(row: tuple[str, ...]) -> str:
        cells = zip(head, row, widths, strict=True)
        return "  ".join(
            c.rjust(w) if name in right else c.ljust(w) for name, c, w in cells
        ).rstrip()

    return [line(row) for row in shown] if rows else []


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    value, count = row["value"], row["count"]
    many = f" ({row['replicas']} runs)" if row["replicas"] > 1 else ""
    return (
        row["run"] + many,
        row["experiment"],
        row["state"],
        row["metric"] or "-",
        "-" if value is None else f"{value:.4g}",
        "-" if count is None else f"{count:,.0f}",
        f"{row['step']:,}",
        row["date"].replace("T", " ")[:16],
    )
