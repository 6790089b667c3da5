"""`predict`: what a run's model says about image files, as text, JSON, CSV and drawn on them."""

import sys
from pathlib import Path
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py predict runs/first photo.jpg digit.png --top 3"


def add_arguments(parser: Any) -> None:
    _arguments.add_model_arguments(parser)
    _arguments.add_tta_argument(parser)
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
        help="where drawings go as PNG (default: RUN/predictions); those of an earlier call that "
        "have the same names are replaced",
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
    from jaxcnn.errors import ConfigError

    if bool(args.images) == bool(args.input):
        raise ConfigError("predict: give pictures, or arrays by --input NAME=FILE.npy")
    if args.top < 1:
        raise ConfigError(f"--top {args.top}: must be at least 1")
    prepare_process()

    from jaxcnn.runs import answers, predict

    run = _arguments.open_model(args)
    predictor = run.predictor(tta=args.tta)
    if args.input:
        found = predictor.arrays(read_inputs(args.input))
    else:
        found = predictor.files(predict.find_images(args.images))
    form = next((name for name in ("json", "csv", "coco") if getattr(args, name)), "text")
    printer, taken, faults, count = answers.Printer(form, sys.stdout), set(), [], 0
    for count, (row, pixels) in enumerate(found, 1):
        results = []
        if "error" in row:
            faults.append(row["error"])
            drawn = {"image": row["path"], "error": row["error"]}
        else:
            drawn = row
            if args.coco:
                results = _coco(row, pixels().shape[:2], count - 1)
            if not args.input:
                out = args.out or args.run / "predictions"
                drawn = predict.draw_row(row, pixels, out, taken=taken)
        if "top" in drawn:
            drawn = drawn | {"top": drawn["top"][: args.top]}
        printer.row(answers.as_json(drawn), results)
    printer.end()
    return _arguments.end_of_pictures(faults, count=count)


def _coco(row: dict[str, Any], size: tuple[int, int], number: int) -> list[Any]:
    from jaxcnn.errors import ConfigError
    from jaxcnn.runs.answers import to_coco

    if "objects" not in row:
        raise ConfigError("--coco: this model finds no objects; take --json or --csv")
    return to_coco(row, size, number)


def read_inputs(assignments: list[str]) -> dict[str, Any]:
    """{name: array} of NAME=FILE.npy arguments. Errors: ConfigError, DataError."""
    from jaxcnn.data.files.npz import read_npy
    from jaxcnn.errors import ConfigError, DataError

    arrays = {}
    for assignment in assignments:
        name, equals, path = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--input {assignment!r}: must be NAME=FILE.npy")
        try:
            arrays[name] = read_npy(path)
        except DataError as error:
            raise DataError(f"--input {name}: {error}") from error
    return arrays
