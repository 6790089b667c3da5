"""How long COCO's evaluation of boxes takes, here and with pycocotools: 5,000 images with 100
detections each, of 80 classes.

    python benchmarks/average_precision_speed.py [--images 5000] [--rounds 3]

Both are run by turns in one process on the same objects; wall and processor seconds are printed,
the medians last, and how far their numbers are apart. pycocotools' time is that of evaluate,
accumulate and summarize, without the making of its index.
"""

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcnn.metrics import average_precision

CLASSES, DETECTIONS = 80, 100


def make(num_images: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Truths, and detections of which half are shaken truths, most of the right class."""
    generator = np.random.default_rng(0)

    def boxes(count: int) -> np.ndarray:
        corner = generator.uniform(0, 400, (count, 2))
        extent = generator.choice([20.0, 60.0, 200.0], (count, 1))
        return np.concatenate(
            [corner, corner + extent * generator.uniform(0.6, 1.4, (count, 2))], axis=-1
        )

    truths, predictions = [], []
    for _ in range(num_images):
        count = int(generator.integers(1, 15))
        box, label = boxes(count), generator.integers(0, CLASSES, count)
        extent = box[:, 2:] - box[:, :2]
        area = extent.prod(axis=-1) * generator.uniform(0.5, 1, count)
        crowd = generator.random(count) < 0.03
        truths.append({"box": box, "label": label, "crowd": crowd, "area": area})
        copies = generator.integers(0, count, DETECTIONS // 2)
        shift = 0.07 * np.tile(extent[copies], 2) * generator.normal(size=(copies.size, 4))
        shaken = np.sort((box[copies] + shift).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        other = generator.integers(0, CLASSES, DETECTIONS)
        right = generator.random(copies.size) < 0.7
        other[: copies.size] = np.where(right, label[copies], other[: copies.size])
        predictions.append(
            {
                "box": np.concatenate([shaken, boxes(DETECTIONS - copies.size)]),
                "label": other,
                "score": generator.random(DETECTIONS).round(3),
            }
        )
    return truths, predictions


def to_coco(
    truths: list[dict[str, Any]], predictions: list[dict[str, Any]]
) -> Callable[[], np.ndarray]:
    """pycocotools' evaluation of the same objects, ready to be called."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        out = []
        for number, one in enumerate(images, start=1):
            for i, (y0, x0, y1, x1) in enumerate(one["box"].tolist()):
                row = {"image_id": number, "category_id": int(one["label"][i]) + 1}
                row |= {"id": len(out) + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
                row |= {n: float(one[n][i]) for n in ("score", "area") if n in one}
                out.append(row | {"iscrowd": int("crowd" in one and one["crowd"][i])})
        return out

    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": n + 1, "height": 600, "width": 600} for n in range(len(truths))],
            "categories": [{"id": k + 1, "name": str(k)} for k in range(CLASSES)],
            "annotations": rows(truths),
        }
        truth.createIndex()
        found = truth.loadRes(rows(predictions))

    def run() -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats

    return run


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    truths, predictions = make(args.images)
    ways: dict[str, Callable[[], Any]] = {
        "pycocotools": to_coco(truths, predictions),
        "jaxcnn": lambda: list(average_precision.coco_boxes(truths, predictions).values()),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    answers = {}
    for _ in range(args.rounds):
        for name, run in ways.items():
            start, used = time.perf_counter(), time.process_time()
            answers[name] = np.array(run())
            taken[name].append((time.perf_counter() - start, time.process_time() - used))
            wall, processor = taken[name][-1]
            print(f"{name:12} {wall:8.2f} s, {processor:8.2f} s of processor", flush=True)
    for name, times in taken.items():
        wall, processor = np.median(times, axis=0)
        print(f"median {name:12} {wall:8.2f} s, {processor:8.2f} s of processor")
    apart = np.abs(answers["pycocotools"] - answers["jaxcnn"]).max()
    print(f"largest difference of the {len(answers['jaxcnn'])} numbers: {apart:.1e}")


if __name__ == "__main__":
    main()
