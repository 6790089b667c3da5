"""The formats in which a model is exported, and the one place that chooses among them."""

from collections.abc import Sequence
from pathlib import Path

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Tree
from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.runs.events import Record

FORMATS = {
    "stablehlo": "model.jax",
    "onnx": "model.onnx",
    "litert": "model.tflite",
    "safetensors": "model.safetensors",
}
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # that jax.export makes programs for
EVERYWHERE = ("cpu", "cuda", "tpu")  # where a file runs that was asked to run nowhere in particular


def export_as(
    e: Experiment,
    state: Tree,
    path: Path,
    *,
    format: str,
    platforms: Sequence[str] | None = None,
    int8: int,
    label_names: tuple[str, ...],
) -> Record:
    """Write the model of `state`; what was written.

    format: "stablehlo", see `jaxcnn.runs.export.export`, which needs `pip install 'jaxcnn[export]'`
    and runs on `platforms` (None: cpu, cuda and tpu); "onnx", see
    `jaxcnn.runs.onnx_export.write`, which needs `jaxcnn[onnx]`; "litert", see
    `jaxcnn.runs.litert`, which needs `jaxcnn[litert]`; "safetensors", see
    `jaxcnn.runs.export.export_weights`.
    int8: on how many training examples 8 bits are calibrated; 0 for float32.

    Errors: ConfigError for an unknown format or platform, for none, for `int8` of another than
    ONNX, for `platforms` of another than StableHLO, for a folder.
    """
    if format not in FORMATS:
        raise ConfigError(
            f"format {format!r} is unknown{did_you_mean(format, FORMATS)}; there are "
            f"{', '.join(FORMATS)}"
        )
    if int8 and format != "onnx":
        raise ConfigError(f"int8: is made of ONNX alone, not of {format!r}; give format='onnx'")
    if path.is_dir():
        raise ConfigError(
            f"{path}: is a folder; give the name of a file, e.g. {path / FORMATS[format]}"
        )
    if platforms is not None and format != "stablehlo":
        raise ConfigError(
            f"platforms: are of format 'stablehlo' alone; a file of {format!r} is for any machine"
        )
    if format == "onnx":
        from jaxcnn.runs.onnx_export.write import export_onnx

        return export_onnx(e, state, path, label_names=label_names, int8=int8)
    if format == "litert":
        from jaxcnn.runs.litert import export_litert

        return export_litert(e, state, path, label_names=label_names)
    from jaxcnn.runs.export import export, export_weights

    if format == "safetensors":
        return export_weights(e, state, path, label_names=label_names)
    chosen = _checked(platforms) if platforms is not None else EVERYWHERE
    return export(e, state, path, platforms=chosen, label_names=label_names)


def _checked(platforms: Sequence[str]) -> tuple[str, ...]:
    if isinstance(platforms, str) or not platforms:
        raise ConfigError(
            f"platforms={platforms!r}: a tuple of names such as ('cpu', 'cuda'), with one at least"
        )
    for name in platforms:
        if name not in PLATFORMS:
            raise ConfigError(
                f"platforms: {name!r} is unknown{did_you_mean(name, PLATFORMS)}; there are "
                f"{', '.join(PLATFORMS)}, several as cpu,cuda"
            )
    return tuple(platforms)
