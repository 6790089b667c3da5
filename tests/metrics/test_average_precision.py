"""Average precision against pycocotools (to 1e-6) on random images with crowds, ignored objects,
ties, empty images and every size class; its twin without pycocotools is test_ignored_objects.
"""

import contextlib
import functools
import io
import time

import numpy as np
import pytest

from jaxcnn.errors import DataError
from jaxcnn.metrics import average_precision, scored_matching
from jaxcnn.ops import masks

# pycocotools 2.0.11 itself, under NumPy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

SIZE = (160, 200)
CLASSES = 3


def random_box(generator, number):
    corner = generator.uniform(0, 90, (number, 2))
    extent = generator.choice([14.0, 40.0, 110.0], (number, 1)) * generator.uniform(
        0.6, 1.4, (number, 2)
    )
    return np.concatenate([corner, np.minimum(corner + extent, SIZE)], axis=-1)


def random_images(seed, num_images=12):
    """Truths, and predictions of which most are shaken truths; scores are rounded, so that many are
    equal.
    """
    generator = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(num_images):
        number = int(generator.integers(0, 6))
        box, label = random_box(generator, number), generator.integers(0, CLASSES, number)
        points = box[:, None, :2] + generator.random((number, 17, 2)) * (
            box[:, None, 2:] - box[:, None, :2]
        )
        visible = generator.random((number, 17)) < 0.6
        visible[generator.random(number) < 0.2] = False
        area = np.prod(box[:, 2:] - box[:, :2], axis=-1) * generator.uniform(0.5, 1, number)
        crowd = generator.random(number) < 0.2
        truths.append(
            {
                "box": box,
                "label": label,
                "crowd": crowd,
                "ignored": generator.random(number) < 0.15,
                "area": area,
                "points": points,
                "visible": visible,
            }
        )
        copies = np.repeat(np.arange(number), 2)
        extent = np.tile(box[copies, 2:] - box[copies, :2], 2)
        shaken = box[copies] + generator.normal(size=(copies.size, 4)) * 0.06 * extent
        moved = (
            points[copies]
            + generator.normal(size=(copies.size, 17, 2)) * 0.03 * extent[:, None, :2]
        )
        wrong = random_box(generator, 3)
        predictions.append(
            {
                "box": np.concatenate(
                    [np.sort(shaken.reshape(-1, 2, 2), axis=1).reshape(-1, 4), wrong]
                ),
                "label": np.concatenate(
                    [
                        np.where(generator.random(copies.size) < 0.9, label[copies], 0),
                        generator.integers(0, CLASSES, 3),
                    ]
                ),
                "score": generator.random(copies.size + 3).round(1),
                "points": np.concatenate([moved, generator.uniform(0, 100, (3, 17, 2))]),
            }
        )
    return truths, predictions


def paint(box):
    """An ellipse in each box, so that masks differ from boxes."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    center, radius = (box[:, :2] + box[:, 2:]) / 2, np.maximum((box[:, 2:] - box[:, :2]) / 2, 1.0)
    offset = np.stack([y, x], axis=-1)[None] - center[:, None, None]
    return np.sum((offset / radius[:, None, None]) ** 2, axis=-1) < 1


def with_masks(objects):
    changed = [
        {name: value for name, value in one.items() if name not in ("area", "points", "visible")}
        for one in objects
    ]
    return [one | {"mask": paint(one["box"])} for one in changed]


def pycocotools_stats(kind, truths, predictions, num_classes=CLASSES):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")

    def shape(objects, i):
        y0, x0, y1, x1 = (float(v) for v in objects["box"][i])
        entry = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        if kind == "segm":
            rle = masks.encode(objects["mask"][i])
            entry |= {
                "segmentation": {"size": rle["size"], "counts": masks.compress(rle["counts"])},
                "area": float(objects["mask"][i].sum()),
            }
        if kind == "keypoints":
            visible = objects["visible"][i] if "visible" in objects else np.ones(17, bool)
            triples = np.concatenate(
                [objects["points"][i][:, ::-1], 2.0 * visible[:, None]], axis=1
            )
            entry |= {"keypoints": triples.ravel().tolist(), "num_keypoints": int(visible.sum())}
        if "area" in objects:
            entry["area"] = float(objects["area"][i])
        return entry

    annotations, results = [], []
    for image, (truth, prediction) in enumerate(zip(truths, predictions, strict=True), start=1):
        for i, label in enumerate(
            truth["label"]
        ):  # ids from 1: pycocotools takes id 0 for "unmatched"
            identity = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(label) + 1,
                "iscrowd": int(truth["crowd"][i]),
                "need_not_be_found": bool(truth["ignored"][i]),
            }
            annotations.append(identity | shape(truth, i))
        for i, label in enumerate(prediction["label"]):
            results.append(
                {
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "score": float(prediction["score"][i]),
                }
                | shape(prediction, i)
            )
            if kind != "bbox":
                results[-1].pop("bbox")
            results[-1].pop("area")
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO()
        dataset.dataset = {
            "info": {},
            "images": [
                {"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(len(truths))
            ],
            "categories": [{"id": k + 1, "name": str(k)} for k in range(num_classes)],
            "annotations": annotations,
        }
        dataset.createIndex()

        class Evaluation(evaluation.COCOeval):
            """pycocotools overwrites "ignore" of the file by "iscrowd"; this says it again."""

            def _prepare(self):
                super()._prepare()
                for annotation in (a for found in self._gts.values() for a in found):
                    annotation["ignore"] |= annotation["need_not_be_found"]

        run = Evaluation(dataset, dataset.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


KINDS = {
    "bbox": average_precision.coco_boxes,
    "segm": average_precision.coco_masks,
    "keypoints": average_precision.coco_keypoints,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(kind, seed, monkeypatch):
    monkeypatch.setattr(scored_matching, "BLOCK", 5)  # images are matched in several blocks
    truths, predictions = random_images(seed)
    if kind == "segm":
        truths, predictions = with_masks(truths), with_masks(predictions)
    expected = pycocotools_stats(kind, truths, predictions)
    ours = KINDS[kind](truths, predictions)
    assert len(ours) == len(expected)
    np.testing.assert_allclose(list(ours.values()), expected, atol=1e-6, err_msg=", ".join(ours))
    assert 0.1 < ours["AP"] < 0.95  # the data discriminate


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_each_class_equals_pycocotools_on_its_objects_alone(kind):
    truths, predictions = random_images(4)
    truths = [without_class(truth, 1) for truth in truths]  # is predicted, and never true
    if kind == "segm":
        truths, predictions = with_masks(truths), with_masks(predictions)
    ours = KINDS[kind](truths, predictions, num_classes=CLASSES)
    for label in range(CLASSES):
        others = [other for other in range(CLASSES) if other != label]
        alone = [
            [functools.reduce(without_class, others, one) for one in images]
            for images in (truths, predictions)
        ]
        ap, ap50 = pycocotools_stats(kind, alone[0], alone[1])[:2]
        found = ours["per_class_ap"][label], ours["per_class_ap50"][label]
        assert found == (pytest.approx((ap, ap50), abs=1e-6) if label != 1 else (None, None))


def without_class(one, label):
    return {name: value[one["label"] != label] for name, value in one.items()}


def test_the_limit_of_detections_equals_pycocotools():
    truths, predictions = random_images(9, num_images=3)
    many = [
        {name: np.concatenate([value] * 25) for name, value in one.items()} for one in predictions
    ]
    for one in many:
        one["score"] = np.random.default_rng(0).random(one["score"].size)
    np.testing.assert_allclose(
        list(average_precision.coco_boxes(truths, many).values()),
        pycocotools_stats("bbox", truths, many),
        atol=1e-6,
    )


def test_many_classes_and_detections_take_at_most_three_times_pycocotools_time():
    """Processor time, pycocotools with its index; some 30 times less than it when written."""
    pytest.importorskip("pycocotools")
    generator = np.random.default_rng(0)
    truths, predictions = random_images(3, num_images=40)
    for truth, prediction in zip(truths, predictions, strict=True):
        copies = generator.integers(0, prediction["label"].size, 100)
        prediction |= {name: value[copies] for name, value in prediction.items()}
        truth["label"] = generator.integers(0, 80, truth["label"].size)
        prediction["label"] = generator.integers(0, 80, 100)
    start = time.process_time()
    ours = list(average_precision.coco_boxes(truths, predictions).values())
    middle = time.process_time()
    theirs = pycocotools_stats("bbox", truths, predictions, num_classes=80)
    assert middle - start < 3 * (time.process_time() - middle)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_scores_1_and_none_scores_0(kind):
    truths, _ = random_images(5)
    truths = [
        truth
        | {
            "crowd": np.zeros(truth["label"].size, bool),
            "ignored": np.zeros(truth["label"].size, bool),
            "visible": np.ones((truth["label"].size, 17), bool),
        }
        for truth in truths
    ]
    if kind == "segm":
        truths = with_masks(truths)
    perfect = [truth | {"score": np.ones(truth["label"].size)} for truth in truths]
    assert KINDS[kind](truths, perfect)["AP"] == pytest.approx(1.0)
    nothing = [{name: value[:0] for name, value in one.items()} for one in perfect]
    assert KINDS[kind](truths, nothing)["AP"] == 0
    assert KINDS[kind](nothing, nothing)["AP"] == -1


def objects(rows, **more):
    return {
        "box": np.array([row[0] for row in rows], float).reshape(-1, 4),
        "label": np.zeros(len(rows), int),
    } | {name: np.array(value) for name, value in more.items()}


def test_voc_by_hand():
    """Two truths; ranked right, wrong, right, double: precision 1, 1/2, 2/3, 2/4 at recall 1/2,
    1/2, 1, 1.
    """
    here, there, away = (0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 60, 60)
    truth = objects([(here,), (there,)])
    prediction = objects([(there,), (here,), (away,), (here,)], score=[0.5, 0.9, 0.8, 0.1])
    assert average_precision.voc_boxes([truth], [prediction])["mAP"] == pytest.approx(
        0.5 * 1 + 0.5 * 2 / 3
    )
    eleven = average_precision.voc_boxes([truth], [prediction], num_points=11)
    # recalls 0 to 0.5, then 0.6 to 1
    assert eleven["mAP"] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    difficult = truth | {"difficult": np.array([False, True])}
    assert average_precision.voc_boxes([difficult], [prediction])[0] == pytest.approx(1.0)


def test_voc_area_is_that_of_a_ranking_when_each_truth_is_found():
    """With one detection at each truth and others elsewhere, AP is that of a ranking, made
    monotone.
    """
    generator = np.random.default_rng(0)
    label, score = generator.random(30) < 0.5, generator.permutation(30) / 30
    box = np.arange(30)[:, None] * 100 + np.array([0, 0, 10, 10])
    truth = objects([(row,) for row in box[label]])
    prediction = objects([(row,) for row in box], score=score)
    order = np.argsort(-score)
    precision = np.cumsum(label[order]) / np.arange(1, 31)
    best = np.array([precision[i:].max() for i in range(30)])
    expected = best[label[order]].mean()
    assert average_precision.voc_boxes([truth], [prediction])["mAP"] == pytest.approx(expected)


def test_bad_input_is_refused():
    truth = objects([((0, 0, 1, 1),)])
    with pytest.raises(DataError, match="1 images have truths and 0"):
        average_precision.coco_boxes([truth], [])
    with pytest.raises(DataError, match="image 0 has score NaN"):
        average_precision.coco_boxes([truth], [truth | {"score": np.array([np.nan])}])


def test_ap50_of_a_class_is_that_of_an_overlap_of_one_half():
    """Overlaps of 0.52 and 0.48: found at 0.5 alone of ten thresholds, and never."""
    truth = {"label": np.array([0, 1]), "box": np.array([[0, 0, 1, 1.0]] * 2)}
    box = np.array([[0, 0, 1, 0.52], [0, 0, 1, 0.48]])
    prediction = {"label": np.array([0, 1]), "box": box, "score": np.array([0.9, 0.8])}
    found = average_precision.coco_boxes([truth], [prediction], num_classes=3)
    assert found["per_class_ap50"] == [pytest.approx(1), 0, None]
    assert found["per_class_ap"] == [pytest.approx(0.1), 0, None]
    assert found["per_class_support"] == [1, 1, 0]
