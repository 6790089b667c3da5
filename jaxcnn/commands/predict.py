"""`predict`: what a run's model says about image files, as text, JSON, CSV and drawn on them."""

import json
import sys
from pathlib import Path
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py predict runs/first photo.jpg digit.png --top 3"


def add_arguments(parser: Any) -> None:
    _arguments.add_model_arguments(parser)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image files of any format and size, folders of them, or patterns; resized as in "
        "training",
    )
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="NAME=FILE.npy",
        help="arrays instead of pictures, one for each input of the model",
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
    form.add_argument(
        "--coco", action="store_true", help="print the objects as COCO results, one JSON list"
    )


def main(args: Any) -> int:
    """Exit code 3 where a picture could not be read; the others are answered."""
    from jaxcnn.errors import ConfigError, DataError

    if bool(args.images) == bool(args.input):
        raise ConfigError("predict: give pictures, or arrays by --input NAME=FILE.npy")
    prepare_process()

    from jaxcnn.runs import predict

    run = _arguments.open_model(args)
    predictor = run.predictor()
    if args.input:
        found = predictor.arrays(read_inputs(args.input))
    else:
        found = predictor.files(predict.find_images(args.images))
    rows, coco, taken = [], [], set()
    for number, (row, pixels) in enumerate(found):
        if args.coco:
            if "objects" not in row and "error" not in row:
                raise ConfigError("--coco: this model finds no objects; take --json or --csv")
            coco += predict.to_coco(row, pixels.shape[:2], number) if "objects" in row else []
        drawn = row
        if not args.input and "error" not in row:
            drawn = predict.draw_row(row, pixels, args.out or args.run / "predictions", taken=taken)
        elif "error" in row:
            drawn = {"image": row["path"], "error": row["error"]}
        if "top" in drawn:
            drawn = drawn | {"top": drawn["top"][: max(1, args.top)]}
        rows.append(predict.as_json(drawn))
    _print(args, rows, coco)
    faults = [row for row in rows if "error" in row]
    if faults and len(faults) == len(rows):
        raise DataError(faults[0]["error"])
    for row in faults:
        print(f"warning: {row['error']}", file=sys.stderr)
    return DataError.exit_code if faults else 0


def _print(args: Any, rows: list[dict[str, Any]], coco: list[dict[str, Any]]) -> None:
    from jaxcnn.runs.predict import sentence, write_csv

    if args.coco:
        print(json.dumps(coco))
    elif args.json:
        print(json.dumps(rows))
    elif args.csv:
        write_csv(rows, sys.stdout)
    else:
        for number, row in enumerate(rows):
            print(f"{row.get('image', number)}: {sentence(row)}")


def read_inputs(assignments: list[str]) -> dict[str, Any]:
    """{name: array} of NAME=FILE.npy arguments. Errors: ConfigError, DataError."""
    import numpy as np

    from jaxcnn.errors import ConfigError, DataError

    arrays = {}
    for assignment in assignments:
        name, equals, path = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--input {assignment!r}: must be NAME=FILE.npy")
        try:
            arrays[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"--input {path}: cannot be read as .npy ({error})") from error
    return arrays
