"""`evaluate`: exact metrics of a run's model on a split of its data, or on other data."""

import json
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py evaluate runs/first --split test --checkpoint best"


def add_arguments(parser: Any) -> None:
    _arguments.add_model_arguments(parser)
    _arguments.add_tta_argument(parser)
    parser.add_argument("--split", default="eval", choices=("train", "eval", "test"))
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="PATH=VALUE",
        help="other data of the same kind: fields of the run's data to change, e.g. path=photos2",
    )
    parser.add_argument(
        "--json", action="store_true", help="print all metrics (per class, confusion, …) as JSON"
    )


def main(args: Any) -> int:
    prepare_process()

    from jaxcnn.core.override import override_all
    from jaxcnn.runs.writers import format_number

    run = _arguments.open_model(args)
    data = None
    if args.data:
        e = run.replicas[0].experiment
        data = override_all(e, [f"data.{assignment}" for assignment in args.data]).data
    head: dict[str, Any] = {"run": str(args.run), "split": args.split}
    metrics = run.evaluate(args.split, data=data, tta=args.tta)
    if args.ensemble:
        metric = run.trained()[0].experiment.task.metric
        single = [
            replica.evaluate(args.split, data=data, tta=args.tta)[metric]
            for replica in run.trained()
        ]
        lacking = metrics[metric] is None or None in single  # an AUROC of one class does not exist
        mean = None if None in single else sum(single) / len(single)
        chosen = [replica.record["replica"] for replica in run.trained()]
        gain = {"replicas": chosen, "mean_of_replicas": mean}
        more = None if lacking else metrics[metric] - mean
        metrics = {**gain, "ensemble_gain": more, **metrics}
    else:
        head = {"run": str(args.run), "step": run.step, "split": args.split}
    if args.tta:
        head["tta"] = args.tta
    if args.json:
        print(json.dumps({**head, **metrics}))
        return 0
    print(", ".join(f"{name} {value}" for name, value in head.items()))
    for name, value in metrics.items():
        if value is None or isinstance(value, (int, float)):
            print(f"  {name:24} {'-' if value is None else format_number(value)}")
    for line in class_table(metrics, run.data.label_names):
        print(line)
    return 0


def class_table(metrics: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """The lines of a table with one row a class and one column for each metric called
    "per_class_…"; nothing where there is none, "-" for a number that does not exist.
    """
    from jaxcnn.runs.answers import class_name
    from jaxcnn.runs.writers import format_number

    columns = {k.removeprefix("per_class_"): v for k, v in metrics.items() if "per_class_" in k}
    lines = [f"  {'class':24} " + " ".join(f"{name:>10}" for name in columns)] if columns else []
    rows = list(zip(*columns.values(), strict=True))
    for i, row in enumerate(rows):
        shown = ("-" if value is None else format_number(value) for value in row)
        name = class_name(i, names=names, count=len(rows))
        lines.append(f"  {name:24} " + " ".join(f"{text:>10}" for text in shown))
    return lines
