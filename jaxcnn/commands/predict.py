"""`predict`: what a run's model says about image files, as text, JSON, CSV and drawn on them."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

from jaxcnn.commands import experiments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py predict runs/first photo.jpg digit.png --top 3"
# what of a description is worth a picture
DRAWN = (
    "objects",
    "segmentation",
    "points",
    "image",
    "text",
)


def add_arguments(parser: Any) -> None:
    experiments.add_model_arguments(parser)
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="image files of any format and size; resized as in training",
    )
    parser.add_argument("--top", type=int, default=3, help="how many classes to show (default: 3)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where drawings go as PNG (default: RUN/predictions)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON list")
    form.add_argument(
        "--csv", action="store_true", help="print CSV, a line for each class, object or text"
    )


def main(args: Any) -> int:
    prepare_process()
    if args.ensemble:
        experiment, state, _ = experiments.restore_ensemble(args.run, kind=args.checkpoint)
    else:
        experiment, state, _ = experiments.restore_run(
            args.run, kind=args.checkpoint, replica=args.replica
        )

    from jaxcnn.commands.evaluate import validation_metrics

    rows = predict_images(experiment, state, args.images, metrics=validation_metrics(args.run))
    draw_rows(rows, args.out or args.run / "predictions")
    rows = [as_json(row) for row in rows]
    for row in rows:
        if "top" in row:
            row["top"] = row["top"][: max(1, args.top)]
    if args.json:
        print(json.dumps(rows))
    elif args.csv:
        write_csv(rows)
    else:
        for row in rows:
            print(f"{row['image']}: {sentence(row)}")
    return 0


def predict_images(
    e: Any, state: Any, paths: list[Path], *, metrics: dict | None
) -> list[dict[str, Any]]:
    """One row an image: {"image": its path, "pixels": uint8 [H, W, C], **what the task's `describe`
    says of it}.
    """
    import dataclasses

    import jax
    import numpy as np

    from jaxcnn.data.files.images import read_image
    from jaxcnn.errors import ConfigError
    from jaxcnn.runs.evaluation import program_of

    spec, name = e.data.spec(), e.task.inputs[0]
    shape = spec[name].shape
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise ConfigError(
            f"predict takes image files, but this run's model takes {', '.join(e.task.inputs)}, "
            f"{name} {list(shape)}"
        )
    if metrics:
        e = dataclasses.replace(e, task=e.task.calibrate(metrics))
    program = program_of(e, state)

    def predicted(images: np.ndarray) -> dict[str, Any]:
        # What the model takes besides the picture is known in training alone (true boxes,
        # captions): zeros stand for it.
        batch = {
            other: np.zeros((len(images), *spec[other].shape), spec[other].dtype)
            for other in e.task.inputs[1:]
        }
        batch[name] = images if spec[name].dtype == np.uint8 else images.astype(np.float32) / 255
        return jax.device_get(program.predict_step(state, batch))

    pictures = [read_image(path, size=None, channels=shape[-1]) for path in paths]
    if getattr(e.task, "any_size", False):
        results = [jax.tree.map(lambda x: x[0], predicted(picture[None])) for picture in pictures]
    else:
        together = predicted(
            np.stack([read_image(path, size=shape[:2], channels=shape[-1]) for path in paths])
        )
        results = [{key: value[i] for key, value in together.items()} for i in range(len(paths))]
    names = tuple(e.data.label_names)
    rows = zip(paths, pictures, results, strict=True)
    return [
        {"image": str(path), "pixels": pixels, "described": e.task.describe(row, names=names)}
        for path, pixels, row in rows
    ]


def draw_rows(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw what can be drawn, and flatten each row: {"image", "drawing": path of the PNG if there
    is one, **description}.
    """
    from jaxcnn.inspect.drawing import draw

    for number, row in enumerate(rows):
        pixels, described = row.pop("pixels"), row.pop("described")
        if any(key in described for key in DRAWN):
            folder.mkdir(parents=True, exist_ok=True)
            stem = Path(row["image"]).stem
            taken = any(Path(other["image"]).stem == stem for other in rows[:number])
            path = folder / (f"{stem}_{number}.png" if taken else f"{stem}.png")
            draw(pixels, described).save(path)
            row["drawing"] = str(path)
        row |= {key: value for key, value in described.items() if key != "image"}


def as_json(value: Any) -> Any:
    """A row without arrays: masks (bool) become COCO's run lengths, class maps the share of each
    class, all else lists.
    """
    import numpy as np

    from jaxcnn.ops import masks

    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if not isinstance(value, np.ndarray | np.generic):
        return value
    if value.ndim == 2 and value.dtype == bool:
        rle = masks.encode(value)
        return {"size": rle["size"], "counts": masks.compress(rle["counts"])}
    if value.ndim == 2 and value.dtype.kind in "iu":
        labels, counts = np.unique(value, return_counts=True)
        return {
            str(label): count / value.size
            for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
        }
    return value.tolist()


def sentence(row: dict[str, Any]) -> str:
    """A row in words."""
    parts = []
    if "top" in row:
        parts.append(", ".join(f"{t['name']} {t['probability']:.1%}" for t in row["top"]))
    if "text" in row:
        parts.append(row["text"] or "(no text)")
    if "objects" in row:
        parts.append(
            ", ".join(f"{o.get('name', 'object')} {o.get('score', 1):.1%}" for o in row["objects"])
            or "nothing found"
        )
    if "segmentation" in row:
        names = row.get("segment_names", [])
        shares = ((int(label), share) for label, share in row["segmentation"].items())
        parts.append(
            ", ".join(f"{names[k] if k < len(names) else k} {share:.1%}" for k, share in shares)
        )
    if "points" in row:
        parts.append(f"{len(row['points'])} points")
    if "drawing" in row:
        parts.append(f"drawn in {row['drawing']}")
    return "; ".join(parts)


def write_csv(rows: list[dict[str, Any]]) -> None:
    """Classes, objects, points or texts as CSV on stdout."""
    from jaxcnn.errors import ConfigError

    writer = csv.writer(sys.stdout)
    if all("top" in row for row in rows):
        writer.writerow(("image", "rank", "label", "name", "probability"))
        for row in rows:
            writer.writerows(
                (row["image"], rank, t["label"], t["name"], t["probability"])
                for rank, t in enumerate(row["top"], 1)
            )
    elif all("objects" in row for row in rows):
        writer.writerow(("image", "rank", "label", "name", "score", "y0", "x0", "y1", "x1"))
        for row in rows:
            for rank, o in enumerate(row["objects"], 1):
                writer.writerow(
                    (
                        row["image"],
                        rank,
                        o.get("label"),
                        o.get("name"),
                        o.get("score"),
                        *o.get("box", ()),
                    )
                )
    elif all("points" in row for row in rows):
        writer.writerow(("image", "point", "y", "x", "score"))
        for row in rows:
            writer.writerows((row["image"], i, *point) for i, point in enumerate(row["points"]))
    elif all("text" in row for row in rows):
        writer.writerow(("image", "text"))
        writer.writerows((row["image"], row["text"]) for row in rows)
    else:
        raise ConfigError("--csv: this task's results are no table; take --json, or the drawings")
