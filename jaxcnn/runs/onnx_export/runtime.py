"""ONNX Runtime: what a model answers, and whether that is what JAX answers."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.runs.events import Record
from jaxcnn.runs.export import Traced, tracing

TOLERANCE = 1e-4  # of the largest number of an output
FEW = 0.01  # of an output's numbers, which a decision near a tie may change
ROWS = (1, 7)

Arrays = dict[str, np.ndarray]


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


def compare(running: Any, model: Traced) -> Record:
    """Ask both the same of noise, 1 row and 7 rows: {"rows", "largest_difference", relative to the
    largest number of an output, "off", the share of numbers that differ by more than 1e-4 of it}.

    Errors: ConfigError where more than 1 % of an output's numbers are off.
    """
    largest, off = 0.0, 0.0
    with tracing():
        ours = jax.jit(model.predict)
        for rows in ROWS:
            batch = noise(model, rows)
            expected, found = jax.device_get(ours(batch)), answers(running, batch)
            for name, x in expected.items():
                difference, share = apart(x, found[name])
                largest, off = max(largest, difference), max(off, share)
                if share > FEW:
                    raise ConfigError(
                        f"format onnx: of {name!r} {share:.1%} of the numbers differ between ONNX "
                        f"Runtime and JAX, by up to {difference:.1e} of the largest; nothing was "
                        "written. Export with the format 'stablehlo'"
                    )
    return {"rows": list(ROWS), "largest_difference": largest, "off": off}


def apart(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """(largest difference of two arrays, relative to the largest number expected; share of numbers
    that differ by more than `TOLERANCE` of it). A different shape or dtype: (inf, 1).
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf"), 1.0
    a, b = expected.astype(np.float64), found.astype(np.float64)
    scale = float(np.max(np.abs(a), initial=0, where=np.isfinite(a))) or 1.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b) / scale
    difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, difference)
    difference = np.nan_to_num(difference, nan=np.inf)
    return float(difference.max(initial=0)), float(np.mean(difference > TOLERANCE))


def noise(model: Traced, rows: int) -> Arrays:
    """Rows of random numbers as the model takes them: bytes, fractions, or 0 and 1."""
    random = np.random.default_rng(0)
    batch = {}
    for name, s in model.batch.items():
        shape, dtype = (rows, *s.shape[1:]), np.dtype(s.dtype)
        if np.issubdtype(dtype, np.floating):
            batch[name] = random.random(shape).astype(dtype)
        else:
            batch[name] = random.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)
    return batch
