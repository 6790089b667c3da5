"""`bench augment`: how many images a second each augmentation changes, compiled by itself, with the
labels that it needs.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxcnn.bench.report import doubts, spread
from jaxcnn.bench.timing import alternate, fitting_steps, timing
from jaxcnn.data import augment
from jaxcnn.runs import environment

NAME = "augment"
BLOCK_SECONDS = 0.1  # of one augmentation: there are many
OBJECTS = 8
Augment = Callable[[jax.Array, dict[str, Any]], dict[str, Any]]


def augmentations(height: int, width: int, channels: int) -> dict[str, Augment]:
    """By name, with options under which each image is changed."""
    colour: dict[str, Augment] = {"jitter_lighting": augment.jitter_lighting}
    always = {
        name: partial(getattr(augment, name), rate=1.0)
        for name in ("posterize", "solarize", "equalize", "autocontrast", "invert", "blur", "erase")
    }
    names = (
        *("flip_left_right", "flip_up_down", "shift", "rotate", "scale", "affine", "elastic"),
        *("jitter_brightness", "jitter_contrast", "jitter_saturation", "jitter_sharpness"),
        *("jitter_hue", "jitter_color", "jitter_gamma", "add_noise", "salt_and_pepper"),
        *("rand_augment", "trivial_augment", "auto_augment", "aug_mix", "mixup", "cutmix"),
        *("mosaic", "copy_paste", "multi_scale"),
    )
    plain: dict[str, Augment] = {name: getattr(augment, name) for name in names}
    sized: dict[str, Augment] = {
        "crop_resized": partial(augment.crop_resized, size=(height, width)),
        "shear": partial(augment.shear, degrees=15.0, degrees_y=15.0),
        "perspective": partial(augment.perspective, rate=1.0),
        "grid_mask": partial(augment.grid_mask, rate=1.0),
        "cutout": partial(augment.cutout, size=max(1, min(height, width) // 2)),
    }
    return plain | always | sized | (colour if channels == 3 else {})


def batch_for(name: str, shape: tuple[int, int, int], rows: int) -> dict[str, np.ndarray]:
    """Random images, with the labels that the augmentation `name` wants."""
    random = np.random.default_rng(0)
    batch: dict[str, np.ndarray] = {"image": random.random((rows, *shape), np.float32)}
    if name in ("mixup", "cutmix"):
        batch["label"] = np.zeros(rows, np.int32)
    if name in ("mosaic", "multi_scale", "copy_paste"):
        corners = np.sort(random.random((rows, OBJECTS, 2, 2), np.float32), axis=2)
        batch["boxes"] = corners.reshape(rows, OBJECTS, 4)
        batch["boxes_mask"] = np.ones((rows, OBJECTS), np.float32)
        batch["box_labels"] = np.zeros((rows, OBJECTS), np.int32)
    if name == "copy_paste":
        batch["instance_masks"] = (random.random((rows, OBJECTS, *shape[:2])) < 0.2).astype("f4")
    return batch


def results(
    *,
    shapes: tuple[tuple[int, int, int], ...] = ((32, 32, 3), (224, 224, 3)),
    batch_size: int = 64,
    rounds: int = 7,
    names: tuple[str, ...] = (),
) -> Iterator[dict[str, Any]]:
    """One result for each shape and augmentation (of `names` if there are any): {"name", "shape",
    "batch_size", "compile_seconds", "images_per_second", "ms_per_step" (median), "ms_quartiles",
    "rounds", and what else used the processors (`timing`)}.
    """
    where = {"environment": environment.describe()}
    for shape in shapes:
        for name, function in augmentations(*shape).items():
            if names and name not in names:
                continue
            batch, key = jax.device_put(batch_for(name, shape, batch_size)), jax.random.key(0)
            start = time.perf_counter()
            compiled = jax.jit(function).lower(key, batch).compile()
            seconds = time.perf_counter() - start
            timer = partial(_block, compiled, key, batch)
            steps = fitting_steps(timer, block_seconds=BLOCK_SECONDS)
            took = alternate({name: timer}, steps=steps, rounds=rounds)[name]
            head = {"name": name, "shape": list(shape), "batch_size": batch_size}
            yield {
                **head,
                "compile_seconds": seconds,
                **timing(took, batch_size=batch_size),
                **where,
            }


def as_text(result: dict[str, Any]) -> str:
    """One line of a result."""
    size = "x".join(map(str, result["shape"]))
    return (
        f"{result['name']:20} {size:>11} {result['images_per_second']:>14,.0f} images/s  "
        f"{spread(result)} ms for {result['batch_size']}, n = {result['rounds']}, compiled in "
        f"{result['compile_seconds']:.1f} s{doubts(result)}"
    )


def as_markdown(found: list[dict[str, Any]]) -> str:
    """A line for each augmentation, a column for each shape: images a second."""
    shapes = list(dict.fromkeys("x".join(map(str, r["shape"])) for r in found))
    cells = {(r["name"], "x".join(map(str, r["shape"]))): r["images_per_second"] for r in found}
    lines = [["augmentation", *(f"{shape}, images/s" for shape in shapes)]]
    lines.append(["---"] * len(lines[0]))
    for name in dict.fromkeys(r["name"] for r in found):
        speeds = [cells.get((name, shape)) for shape in shapes]
        lines.append([name, *("–" if speed is None else f"{speed:,.0f}" for speed in speeds)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _block(compiled: Any, key: jax.Array, batch: dict[str, Any], steps: int) -> float:
    out, start = None, time.perf_counter()
    for _ in range(steps):
        out = compiled(key, batch)
    jax.block_until_ready(out)
    return time.perf_counter() - start
