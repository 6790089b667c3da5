"""`evaluate`: exact metrics of a run's model on a split of its data."""

import json
from pathlib import Path
from typing import Any

from jaxcnn.commands import experiments
from jaxcnn.environment import prepare_process

EXAMPLE = "python launch.py evaluate runs/first --split test --checkpoint best"


def add_arguments(parser: Any) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--split", default="eval", choices=("train", "eval", "test"))
    parser.add_argument("--checkpoint", default="last", choices=("last", "best"))
    parser.add_argument("--json", action="store_true", help="print all metrics (per class, confusion, …) as JSON")


def main(args: Any) -> int:
    prepare_process()
    experiment, state, step, _ = experiments.restore_run(args.run, kind=args.checkpoint)

    from jaxcnn.log import format_number
    from jaxcnn.run import evaluate_split

    metrics = evaluate_split(experiment, state, args.split, metrics=validation_metrics(args.run))
    if args.json:
        print(json.dumps({"run": str(args.run), "step": step, "split": args.split, **metrics}))
        return 0
    print(f"{args.run}, step {step}, split {args.split!r}")
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            print(f"  {name:24} {format_number(value)}")
    names = experiment.data.label_names
    for i, value in enumerate(metrics.get("per_class_accuracy", [])):
        print(f"  {'accuracy of ' + (names[i] if i < len(names) else str(i)):24} {format_number(value)}")
    return 0


def validation_metrics(run: Path) -> dict | None:
    """The last validation metrics of a run: decisions such as a threshold come from them."""
    from jaxcnn.log import History

    evaluations = History(run / "metrics.jsonl").evaluations()
    return evaluations[-1]["metrics"] if evaluations else None
