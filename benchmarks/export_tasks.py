"""Experiments as ONNX or LiteRT files: which of them can be written, and how far the answers are
from JAX's.

    python benchmarks/export_tasks.py --format litert scenes_detection two_inputs
    python benchmarks/export_tasks.py --format onnx          # (default: one of each task)

Weights are fresh ones; the data's shapes are needed, not its examples. Differences: as the exports
themselves find them, relative to the largest number of an output.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import jax

from jaxcnn.core.program import make_program
from jaxcnn.data.recorded import record
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.runs.code import load
from jaxcnn.runs.formats import export_as

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TASKS = (
    *("digits_lenet5", "digits_multi_label", "fashion_mnist_binary", "two_inputs", "spam_text_cnn"),
    *("osuleaf_fcn", "digits_rotation", "mnist_motion_3d", "scenes_localization"),
    *("scenes_detection", "scenes_detection_fcos", "scenes_instances", "scenes_keypoints"),
    *("scenes_segmentation", "scenes_text_detection", "scenes_ocr", "scenes_captioning"),
    *("scenes_captioning_lstm", "photos_super_resolution", "photos_style_feedforward"),
    *("mnist_vae", "mnist_gan"),
)


def row(name: str, format: str, folder: Path) -> str:
    """A line of the table."""
    try:
        e = load(EXPERIMENTS / f"{name}.py", overrides=[])
        e = dataclasses.replace(e, data=record(e.data))
    except DataError as error:
        return f"| {name} | | not tried: {str(error).splitlines()[0]} | |"
    task = type(e.task).__name__
    state = jax.jit(make_program(e, steps=1).init)(jax.random.key(0))
    file = folder / f"{name}.{format}"
    try:
        result = export_as(e, state, file, format=format, int8=0, label_names=())
    except ConfigError as error:
        return f"| {name} | {task} | refused: {error} | |"
    checked = result["checked"]
    found = f"{checked['largest_difference']:.1e}"
    if checked["off"]:
        found += f" ({checked['off']:.2%} off)"
    return f"| {name} | {task} | {found} | {file.stat().st_size / 1e6:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="without .py")
    parser.add_argument("--format", choices=("onnx", "litert"), default="onnx")
    args = parser.parse_args()
    print("| experiment | task | difference | MB |\n| --- | --- | --- | --- |")
    for name in args.names or TASKS:
        with tempfile.TemporaryDirectory() as folder:
            print(row(name, args.format, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
