"""`predict`: what a run's model says about image files."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

from jaxcnn.commands import experiments
from jaxcnn.environment import prepare_process

EXAMPLE = "python launch.py predict runs/first photo.jpg digit.png --top 3"


def add_arguments(parser: Any) -> None:
    experiments.add_model_arguments(parser)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files of any format and size; resized as in training")
    parser.add_argument("--top", type=int, default=3, help="how many classes to show (default: 3)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON list")
    form.add_argument("--csv", action="store_true", help="print CSV: image, rank, label, name, probability")


def main(args: Any) -> int:
    prepare_process()
    if args.ensemble:
        experiment, state, _ = experiments.restore_ensemble(args.run, kind=args.checkpoint)
    else:
        experiment, state, _ = experiments.restore_run(args.run, kind=args.checkpoint, replica=args.replica)

    from jaxcnn.commands.evaluate import validation_metrics

    rows = predict_images(experiment, state, args.images, top=args.top, metrics=validation_metrics(args.run))
    if args.json:
        print(json.dumps(rows))
    elif args.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(("image", "rank", "label", "name", "probability"))
        for row in rows:
            writer.writerows((row["image"], rank, t["label"], t["name"], t["probability"]) for rank, t in enumerate(row["top"], 1))
    else:
        for row in rows:
            print(f"{row['image']}: " + ", ".join(f"{t['name']} {t['probability']:.1%}" for t in row["top"]))
    return 0


def predict_images(e: Any, state: Any, paths: list[Path], *, top: int, metrics: dict | None) -> list[dict[str, Any]]:
    """One row an image: {"image", "label", "name", "probability", "top": [{"label", "name", "probability"}, …]}."""
    import dataclasses

    import jax
    import numpy as np

    from jaxcnn.data.images import read_image
    from jaxcnn.errors import ConfigError
    from jaxcnn.evaluation import program_of

    spec = e.data.spec()
    if e.task.inputs != ("image",):
        raise ConfigError(f"predict takes image files, but this run's model takes {', '.join(e.task.inputs)}")
    height, width, channels = spec["image"].shape
    images = np.stack([read_image(path, size=(height, width), channels=channels) for path in paths])
    if metrics:
        e = dataclasses.replace(e, task=e.task.calibrate(metrics))
    predicted = jax.device_get(program_of(e, state).predict_step(state, {"image": images}))

    def entry(label: int, probability: float) -> dict[str, Any]:
        names = e.data.label_names
        return {"label": int(label), "name": names[label] if label < len(names) else str(label), "probability": float(probability)}

    rows = []
    for i, path in enumerate(paths):
        probabilities = predicted["probabilities"][i]
        order = np.argsort(-probabilities, kind="stable")[: max(1, top)]
        chosen = entry(predicted["label"][i], probabilities[predicted["label"][i]])
        rows.append({"image": str(path), **chosen, "top": [entry(k, probabilities[k]) for k in order]})
    return rows
