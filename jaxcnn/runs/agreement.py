"""Whether the file that was exported answers as JAX does."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.runs.events import Record
from jaxcnn.runs.export import Traced, tracing

TOLERANCE = 1e-4  # of the largest number of an output
FEW = 0.01  # of an output's numbers, which a decision near a tie may change

Arrays = dict[str, np.ndarray]


def compare(
    ask: Callable[[Arrays], Arrays],
    model: Traced,
    *,
    rows: Sequence[int],
    format: str,
    runtime: str,
) -> Record:
    """Ask both the same of noise, so many rows at a time: {"rows", "largest_difference", relative
    to the largest number of an output, "off", the share of numbers that differ by more than 1e-4 of
    it}.

    ask: {input: array [rows, …]} -> {output: array} of the file; format, runtime: its own and that
    of what runs it, for the message.
    Errors: ConfigError where more than 1 % of an output's numbers are off.
    """
    largest, off = 0.0, 0.0
    with tracing():
        ours = jax.jit(model.predict)
        for count in rows:
            batch = noise(model, count)
            expected, found = jax.device_get(ours(batch)), ask(batch)
            for name, x in expected.items():
                difference, share = apart(x, found[name])
                largest, off = max(largest, difference), max(off, share)
                if share > FEW:
                    raise ConfigError(
                        f"format {format}: of {name!r} {share:.1%} of the numbers differ between "
                        f"{runtime} and JAX, by up to {difference:.1e} of the largest; nothing was "
                        "written. Export with the format 'stablehlo'"
                    )
    return {"rows": list(rows), "largest_difference": largest, "off": off}


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
