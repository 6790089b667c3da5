"""`publish`: a run's model as a folder for others, such as the Hugging Face hub takes."""

import json
from pathlib import Path
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py publish runs/first --output digits --license apache-2.0"


def add_arguments(parser: Any) -> None:
    _arguments.add_model_arguments(parser, ensemble=False)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="of the weights, as the hub writes it, e.g. apache-2.0 (default: said to be unknown)",
    )
    parser.add_argument(
        "--no-sample",
        action="store_true",
        help="put no example of the data into the folder",
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="put model.onnx into the folder, too (needs jaxcnn[onnx])",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="then send the folder to this repository of the hub (needs jaxcnn[hub], and a token: "
        "hf auth login)",
    )
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")


def main(args: Any) -> int:
    from jaxcnn.errors import ConfigError

    if args.public and not args.push:
        raise ConfigError("--public is of --push OWNER/NAME")
    prepare_process()
    from jaxcnn.runs.open import open
    from jaxcnn.runs.publish import publish
    from jaxcnn.weights import hub

    if args.push:
        hub.require()
        hub.parse(f"hf://{args.push}")
    run = open(args.run, replica=args.replica, checkpoint=args.checkpoint)
    sample = not args.no_sample
    made = publish(
        run, args.output, license=args.license, sample=sample, onnx=args.onnx, repo=args.push
    )
    result = {"folder": str(made.folder), "files": made.files, "notes": made.notes}
    if not args.json:
        for name, size in made.files.items():
            print(f"{size:>12,}  {name}")
        for note in made.notes:
            print(f"note: {note}")
        print(f"published in {args.output}; look at README.md before others do")
    if args.push:
        result["url"] = hub.push(made.folder, args.push, private=not args.public)
        if not args.json:
            print(f"sent to {result['url']}")
    if args.json:
        print(json.dumps(result))
    return 0
