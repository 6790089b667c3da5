"""`explain`: what in pictures a run's model looks at, drawn on them; its filters, maps, dreams."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process

if TYPE_CHECKING:
    from jaxcnn.runs.open import Run

EXAMPLE = "python launch.py explain runs/first photo.jpg --method gradcam --target cat"
WITHOUT = ("filters", "dream")  # which need no pictures


def add_arguments(parser: Any) -> None:
    _arguments.add_model_arguments(parser, ensemble=False)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image files of any format and size, folders of them, or patterns; resized as in "
        "training. filters need none; a dream without them begins with noise",
    )
    parser.add_argument(
        "--method",
        default="gradcam",
        metavar="METHOD",
        help="what speaks for a class: gradcam (default), layercam, gradient, integrated "
        "(gradients), smoothgrad, occlusion; what is learned: filters (of the first layer), "
        "features (maps of a layer), patches (the pieces of the pictures that a channel answers to "
        "most), dream (pictures changed, or made of noise, to what a class, a layer or a channel "
        "answers to most)",
    )
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="the class that is explained, by name or number (default: the predicted one)",
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="of gradcam, layercam, features, patches, dream: a layer as `summary` names it "
        "(default: the last one that gives maps)",
    )
    parser.add_argument(
        "--channel",
        type=int,
        nargs="+",
        default=[],
        metavar="K",
        help="of features, patches, dream: channels of the layer (default: the first 16; for a "
        "dream all together)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where drawings go as PNG (default: RUN/explanations); those of an earlier call that "
        "have the same names are replaced",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def main(args: Any) -> int:
    """Exit code 3 where a picture could not be read; the others are explained."""
    from jaxcnn.errors import ConfigError
    from jaxcnn.runs.question import Question

    question = Question(args.method, args.target, args.layer, tuple(args.channel))
    if not args.images and question.method not in WITHOUT:
        raise ConfigError(f"explain: {question.method} needs pictures; name files or folders")
    if args.images and question.method == "filters":
        raise ConfigError("explain: filters are of the model alone; leave the pictures out")
    prepare_process()

    from jaxcnn.runs import answers, predict

    explainer = open_one(args).explainer(question)
    printer = answers.Printer("json" if args.json else "text", sys.stdout)
    folder, taken, faults, count = args.output or args.run / "explanations", set(), [], 0
    for row, drawing in explainer.files(predict.find_images(args.images)):
        count += 1
        path = row.pop("path", "")
        if "error" in row:
            faults.append(row["error"])
            row = {"image": path, **row}
        else:
            stem = f"{Path(path).stem}_{question.method}" if path else question.method
            place = predict.place_for(folder, stem, taken=taken)
            predict.save(drawing, place, option="--output")
            row = {"image": path, **row, "drawing": str(place)}
        printer.row(answers.as_json(row), [])
    printer.end()
    return _arguments.end_of_pictures(faults, count=count)


def open_one(args: Any) -> "Run":
    """The run, or of a sweep the replica asked for; else the first that was trained, which is
    said.
    """
    from jaxcnn.errors import ConfigError
    from jaxcnn.runs.open import ended_well, open

    run = open(args.run, replica=args.replica, checkpoint=args.checkpoint)
    if not run.is_sweep:
        return run
    for replica in run.replicas:
        if ended_well(replica.summary):
            number = replica.record["replica"]
            print(
                f"{args.run} is a sweep: replica {number} is explained, the first that was "
                "trained to the end; another by --replica",
                file=sys.stderr,
            )
            return replica
    raise ConfigError(f"{args.run}: no replica was trained to the end; choose one by --replica")
