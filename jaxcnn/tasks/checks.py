"""Rules that several tasks share: of host arrays, each raising DataError that names the array, the
value and the remedy; of a task's fields, each raising ConfigError.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.errors import ConfigError, DataError, did_you_mean

# images in [0, 1] may overshoot a little (resampling, lighting); bytes never stay below this
UNSCALED = 1.5


def check_image(image: np.ndarray, *, name: str = "image") -> None:
    """Images [B, ..., C] must be uint8, or float in about [0, 1] and finite."""
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return
    if not np.issubdtype(image.dtype, np.floating) and image.dtype.name != "bfloat16":
        raise DataError(
            f"{name} has dtype {image.dtype}; expected uint8 in [0, 255] or float in [0, 1]. "
            "Convert with .astype('uint8')"
        )
    if not image.size:
        return
    value = image.astype(np.float32) if image.dtype.itemsize < 4 else image
    finite = np.isfinite(value)
    if not finite.all():
        where = tuple(int(i) for i in np.unravel_index(np.argmin(finite), image.shape))
        raise DataError(
            f"{name}{list(where)} is {value[where]}; pixels must be finite. Drop or repair "
            f"example {where[0]}"
        )
    largest, least = float(value.max()), float(value.min())
    if largest > UNSCALED:
        raise DataError(
            f"unscaled images: the largest value of {name} is {largest:g}; float images lie in "
            "[0, 1]. Divide by 255, or keep uint8"
        )
    if least < -UNSCALED:
        raise DataError(
            f"unscaled images: the least value of {name} is {least:g}; float images lie in [0, "
            "1]. Undo the standardization"
        )


def check_label(label: np.ndarray, *, num_classes: int | None, name: str = "label") -> None:
    """Labels [B] must be integers in [0, num_classes), or merely not negative if `num_classes` is
    None.
    """
    label = np.asarray(label)
    if not np.issubdtype(label.dtype, np.integer):
        raise DataError(
            f"{name} has dtype {label.dtype}; expected integers (int32). Convert with "
            ".astype('int32')"
        )
    if label.ndim != 1:
        remedy = "; one-hot labels become integers by .argmax(axis=-1)" if label.ndim == 2 else ""
        raise DataError(
            f"{name} has shape {label.shape}; expected one label an example, [B]{remedy}"
        )
    wrong = (label < 0) if num_classes is None else (label < 0) | (label >= num_classes)
    if wrong.any():
        index = int(np.argmax(wrong))
        rule = (
            "labels are not negative"
            if num_classes is None
            else f"labels must lie in [0, {num_classes}) (num_classes={num_classes})"
        )
        raise DataError(
            f"{name}[{index}] is {int(label[index])}; {rule}, and {int(wrong.sum())} of "
            f"{label.size} do not. "
            "Count classes from 0, or correct num_classes of the task and the model"
        )


def check_points(
    points: np.ndarray,
    visible: np.ndarray | None,
    *,
    num_points: int,
    skip_outside: bool = False,
) -> None:
    """Points [B, num_points, 2] (y, x) must be floats, those that are `visible` ([B, num_points],
    all if None) finite and in [0, 1] unless `skip_outside`; at least one of them all is visible and
    inside.
    """
    points = np.asarray(points)
    if not np.issubdtype(points.dtype, np.floating):
        raise DataError(
            f"points has dtype {points.dtype}; expected float32 in [0, 1]. Divide pixels by the "
            "image's height and width"
        )
    if points.ndim != 3 or points.shape[1:] != (num_points, 2):
        raise DataError(
            f"points has shape {points.shape}; expected (y, x) of {num_points} points, "
            f"[B, {num_points}, 2]"
        )
    seen = np.ones(points.shape[:2], bool) if visible is None else np.asarray(visible) > 0
    if seen.shape != points.shape[:2]:
        raise DataError(
            f"points_mask has shape {seen.shape}; expected one number a point, {points.shape[:2]}"
        )
    outside = seen & ~((points >= 0) & (points <= 1)).all(axis=-1)  # so written, NaN is outside too
    if outside.any() and not skip_outside:
        row, joint = (int(i) for i in np.unravel_index(np.argmax(outside), outside.shape))
        raise DataError(
            f"points[{row}, {joint}] is {points[row, joint].tolist()}, visible but not in [0, 1], "
            f"as {int(outside.sum())} of {int(seen.sum())} visible points; divide pixels by the "
            "image's height and width, mark points outside the image in points_mask, or set "
            "invalid='skip' of the task"
        )
    if seen.size and not (seen & ~outside).any():
        raise DataError(
            f"no point of these {len(points)} examples is visible; nothing can be learned from "
            "them. Look at points_mask"
        )


def require_entry(batch: dict[str, Any], name: str, task: Any) -> Any:
    """The entry of that name, or DataError if the examples have none."""
    if name not in batch:
        raise DataError(
            f"{type(task).__name__} needs {name!r} but the examples have {sorted(batch)}; rename "
            "the entry, or take another task"
        )
    return batch[name]


def require_choice(task: Any, field: str, choices: Sequence[str]) -> None:
    """ConfigError unless the field is one of the choices."""
    value = getattr(task, field)
    if value not in choices:
        raise ConfigError(
            f"{type(task).__name__}: {field} is {value!r}; it is one of "
            f"{', '.join(choices)}{did_you_mean(str(value), tuple(choices))}"
        )


def require_number(task: Any, field: str, *, above: bool = False) -> None:
    """ConfigError for a number below 0, or with `above` for 0 too; what is traced is let pass."""
    value = getattr(task, field)
    if isinstance(value, int | float) and not (value > 0 if above else value >= 0):
        raise ConfigError(
            f"{type(task).__name__}: {field} is {value}; it must be "
            f"{'above 0' if above else 'at least 0'}"
        )


def require_weights(task: Any, field: str, size: int) -> None:
    """ConfigError unless the field is None or a tuple of `size` numbers, none below 0 and not all
    of them 0.
    """
    value = getattr(task, field)
    if value is None:
        return
    if not isinstance(value, tuple) or len(value) != size:
        given = f"{len(value)} numbers" if isinstance(value, tuple) else repr(value)
        raise ConfigError(
            f"{type(task).__name__}: {field} is {given}; give a tuple of {size}, one a class, or "
            "None"
        )
    numbers = [x for x in value if isinstance(x, int | float)]
    if any(not 0 <= x < float("inf") for x in numbers) or (len(numbers) == size and not any(value)):
        raise ConfigError(
            f"{type(task).__name__}: {field} is {value}; weights are finite, at least 0, and not "
            "all 0"
        )
