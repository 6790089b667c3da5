"""`export`: a run's model as one file that is used without jaxcnn."""

import json
from pathlib import Path
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process
from jaxcnn.runs.events import Record
from jaxcnn.runs.formats import EVERYWHERE, FORMATS

EXAMPLE = "python launch.py export runs/first --format onnx --output lenet.onnx"
CALIBRATION = 256  # examples, where --int8 says no other number


def add_arguments(parser: Any) -> None:
    _arguments.add_model_arguments(parser)
    parser.add_argument(
        "--format",
        default="stablehlo",
        choices=tuple(FORMATS),
        help="stablehlo: for JAX alone (default); onnx: for ONNX Runtime and others; litert: for "
        "LiteRT, one row at a time; safetensors: the weights alone",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help=f"the file to write (default: {', '.join(FORMATS.values())})",
    )
    parser.add_argument(
        "--platforms",
        help=f"where a stablehlo file shall run (default: {','.join(EVERYWHERE)})",
    )
    parser.add_argument(
        "--int8",
        nargs="?",
        type=int,
        const=CALIBRATION,
        default=0,
        metavar="ROWS",
        help="of onnx: 8-bit integers, calibrated on so many training examples (default: "
        f"{CALIBRATION}); says what that costs on the split 'eval'",
    )
    parser.add_argument("--json", action="store_true", help="print inputs and outputs as JSON")


def main(args: Any) -> int:
    prepare_process()
    path = args.output or Path(FORMATS[args.format])
    named = args.platforms
    platforms = None if named is None else tuple(name.strip() for name in named.split(","))
    result = _arguments.open_model(args).export(
        path, format=args.format, platforms=platforms, int8=args.int8
    )
    if args.json:
        print(json.dumps(result))
        return 0
    size = sum(Path(file).stat().st_size for file in result.get("files", [path]))
    print(f"{path} ({size:,} bytes) {_described(result)}")
    return 0


def _described(result: Record) -> str:
    """What was written, what was found, and how it is used."""
    if result["format"] == "safetensors":
        return (
            f"holds {result['numbers']:,} numbers in {result['arrays']} arrays\n"
            f"use: train … weights={result['file']}, or safetensors.numpy.load_file"
        )
    said = f"inputs {result['inputs']}; outputs {result['outputs']}"
    rows = ", ".join(f'"{name}": rows' for name in result["inputs"])
    if result["format"] == "stablehlo":
        return (
            f"runs on {','.join(result['platforms'])}; {said}\n"
            f'use: jax.export.deserialize(open(file, "rb").read()).call({{{rows}}})  '
            "# any number of rows"
        )
    if result["format"] == "litert":
        return (
            f"{said}\n{_compared('LiteRT', result['checked'])}\nuse: ai_edge_litert.interpreter."
            f'Interpreter("{result["file"]}").get_signature_runner()(name=row, …)  # one at a time'
        )
    if (checked := result["checked"]) is not None:
        said += f"\n{_compared('ONNX Runtime', checked)}"
    elif result["int8"] is None:
        said += "\nnot compared with JAX: ONNX Runtime takes no model over 2 GB from memory"
    if (int8 := result["int8"]) is not None:
        said += (
            f"\n8 bits, calibrated on {int8['calibrated_on']} training examples: {int8['metric']} "
            f"{int8['int8']:.4f} on {int8['split']!r}, {int8['float32']:.4f} in float32"
        )
    return f'{said}\nuse: onnxruntime.InferenceSession("{result["file"]}").run(None, {{{rows}}})'


def _compared(runtime: str, checked: Record) -> str:
    said = (
        f"{runtime} and JAX differ by {checked['largest_difference']:.1e} of the largest number at "
        f"most ({' and '.join(map(str, checked['rows']))} rows)"
    )
    if not checked["off"]:
        return said
    off = f"{checked['off']:.2%} of an output's numbers by more than 1e-4: decisions near a tie"
    return f"{said}; {off}"
