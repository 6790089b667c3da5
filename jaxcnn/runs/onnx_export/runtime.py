"""ONNX Runtime: what a model answers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.runs.agreement import Arrays


def session(model: bytes | str, *, threads: int = 0) -> Any:
    """An onnxruntime.InferenceSession on the CPU of a model's bytes, or of the file of that name.

    Errors: ConfigError where ONNX Runtime refuses it, with its words.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise ConfigError(
            f"format onnx: ONNX Runtime refuses the model ({str(error).strip()}); export with the "
            "format 'stablehlo'"
        ) from error


def answers(running: Any, batch: Mapping[str, Any]) -> Arrays:
    """{output: array} of a session for {input: array}; an output "image_out" is "image"."""
    names = [output.name for output in running.get_outputs()]
    asked = {i.name: np.asarray(batch[i.name]) for i in running.get_inputs()}
    given = set(asked)
    own = [n[:-4] if n.endswith("_out") and n[:-4] in given else n for n in names]
    return dict(zip(own, running.run(None, asked), strict=True))
