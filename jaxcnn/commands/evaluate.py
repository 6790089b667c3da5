"""`evaluate`: exact metrics of a run's model on a split of its data."""

import json
from pathlib import Path
from typing import Any

from jaxcnn.commands import experiments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py evaluate runs/first --split test --checkpoint best"


def add_arguments(parser: Any) -> None:
    experiments.add_model_arguments(parser)
    parser.add_argument("--split", default="eval", choices=("train", "eval", "test"))
    parser.add_argument(
        "--json", action="store_true", help="print all metrics (per class, confusion, …) as JSON"
    )


def main(args: Any) -> int:
    prepare_process()

    from jaxcnn.runs.evaluation import evaluate_split
    from jaxcnn.runs.writers import format_number

    if args.ensemble:
        experiment, states, chosen = experiments.restore_ensemble(args.run, kind=args.checkpoint)
        single = [
            evaluate_split(experiment, state, args.split)[experiment.task.metric]
            for state in states
        ]
        metrics = evaluate_split(experiment, states, args.split)
        mean = sum(single) / len(single)
        gain = {
            "replicas": chosen,
            "mean_of_replicas": mean,
            "ensemble_gain": metrics[experiment.task.metric] - mean,
        }
        head, metrics = {"run": str(args.run), "split": args.split}, {**gain, **metrics}
    else:
        experiment, state, step = experiments.restore_run(
            args.run, kind=args.checkpoint, replica=args.replica
        )
        head = {"run": str(args.run), "step": step, "split": args.split}
        metrics = evaluate_split(
            experiment, state, args.split, metrics=validation_metrics(args.run)
        )
    if args.json:
        print(json.dumps({**head, **metrics}))
        return 0
    print(", ".join(f"{name} {value}" for name, value in head.items()))
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            print(f"  {name:24} {format_number(value)}")
    names = experiment.data.label_names
    for i, value in enumerate(metrics.get("per_class_accuracy", [])):
        shown = "no examples" if value is None else format_number(value)
        print(f"  {'accuracy of ' + (names[i] if i < len(names) else str(i)):24} {shown}")
    return 0


def validation_metrics(run: Path) -> dict | None:
    """The last validation metrics of a single run: decisions such as a threshold come from them."""
    from jaxcnn.runs.writers import History

    evaluations = History(run / "metrics.jsonl").evaluations()
    return evaluations[-1]["metrics"] if evaluations else None
