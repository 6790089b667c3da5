"""Objects that need not be found, against loops written from the benchmarks' definitions: COCO's
average precision and recall, VOC's with its own pixel arithmetic, ICDAR's don't-care regions.
"""

import numpy as np
import pytest

from jaxcnn.metrics import average_precision, matching, objects, scored_matching
from tests.metrics.test_average_precision import CLASSES, random_images, with_masks

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RANGES = {"": (0, 1e10), "_small": (0, 1024), "_medium": (1024, 9216), "_large": (9216, 1e10)}


def box_overlap(found, true, crowd):
    low, high = np.maximum(found[:2], true[:2]), np.minimum(found[2:], true[2:])
    shared = np.prod(np.maximum(high - low, 0))
    own, other = (np.prod(box[2:] - box[:2]) for box in (found, true))
    return shared / own if crowd else shared / (own + other - shared)


def mask_overlap(found, true, crowd):
    whole = found.sum() if crowd else (found | true).sum()
    return (found & true).sum() / whole if whole else 0.0


def match_one_image(truth, prediction, overlap, area_of, label, limits, least, most):
    """[(score, right, counts)] of the detections of one image and class, and the truths to find."""
    low, high = limits
    goals = [
        (crowd or ignored or not low <= area <= high, crowd, shape)
        for own, crowd, ignored, area, shape in zip(
            *(truth[name] for name in ("label", "crowd", "ignored", "area", "shape")), strict=True
        )
        if own == label
    ]
    rows = [i for i in range(len(prediction["label"])) if prediction["label"][i] == label]
    rows = sorted(rows, key=lambda i: -prediction["score"][i])[:most]
    taken, answers = set(), []
    for i in rows:
        shape = prediction["shape"][i]
        best = {False: None, True: None}  # of the truths to find, and of the ignored ones
        for g, (ignored, crowd, true) in enumerate(goals):
            likeness = overlap(shape, true, crowd)
            if likeness < min(least, 1 - 1e-10) or (g in taken and not crowd):
                continue
            if best[ignored] is None or likeness >= best[ignored][0]:
                best[ignored] = (likeness, g)
        choice = best[False] or best[True]
        if choice is None:
            answers.append((prediction["score"][i], False, low <= area_of(shape) <= high))
        else:
            taken.add(choice[1])
            answers.append((prediction["score"][i], True, not goals[choice[1]][0]))
    return answers, sum(not ignored for ignored, _, _ in goals)


def brute_force(truths, predictions, overlap, area_of):
    """All twelve numbers, by loops."""
    found = {}
    for name, limits in RANGES.items():
        for most in (1, 10, 100) if not name else (100,):
            precisions, recalls = [], []
            for label in sorted({k for truth in truths for k in truth["label"]}):
                for least in THRESHOLDS:
                    answers, total = [], 0
                    for truth, prediction in zip(truths, predictions, strict=True):
                        more, wanted = match_one_image(
                            truth, prediction, overlap, area_of, label, limits, least, most
                        )
                        answers, total = answers + more, total + wanted
                    if not total:
                        continue
                    answers.sort(key=lambda answer: -answer[0])
                    right = np.cumsum([ok and counts for _, ok, counts in answers] or [0])
                    seen = np.maximum(np.cumsum([counts for _, _, counts in answers] or [0]), 1)
                    at = [
                        max((right / seen)[right / total >= r], default=0.0)
                        for r in np.linspace(0, 1, 101)
                    ]
                    precisions.append((least, np.mean(at)))
                    recalls.append(right[-1] / total)
            found[f"AR_{most}" if not name else f"AR{name}"] = np.mean(recalls or [-1])
            found[f"AP{name}"] = np.mean([value for _, value in precisions] or [-1])
            if not name:
                for least in (0.5, 0.75):
                    found[f"AP{int(100 * least)}"] = np.mean(
                        [value for t, value in precisions if abs(t - least) < 1e-9] or [-1]
                    )
    return found


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@pytest.mark.parametrize("seed", [20, 21])
def test_coco_equals_loops(kind, seed, monkeypatch):
    monkeypatch.setattr(scored_matching, "BLOCK", 3)
    truths, predictions = random_images(seed, num_images=8)
    if kind == "masks":
        truths, predictions = with_masks(truths), with_masks(predictions)
        truths = [t | {"area": t["mask"].sum(axis=(1, 2)) * 1.0} for t in truths]
        ours = average_precision.coco_masks(truths, predictions, num_classes=CLASSES + 1)
    else:
        ours = average_precision.coco_boxes(truths, predictions, num_classes=CLASSES + 1)
    name = {"boxes": "box", "masks": "mask"}[kind]
    truths, predictions = (
        [one | {"shape": one[name]} for one in images] for images in (truths, predictions)
    )
    how = (box_overlap, lambda box: np.prod(box[2:] - box[:2]))
    how = how if kind == "boxes" else (mask_overlap, np.sum)
    of_class = [ours.pop(f"per_class_{n}") for n in ("ap", "ap50", "support")]
    for label, found in enumerate(zip(*of_class, strict=True)):
        mine = [
            [{n: v[one["label"] == label] for n, v in one.items()} for one in images]
            for images in (truths, predictions)
        ]
        wanted = sum((~(one["ignored"] | one["crowd"])).sum() for one in mine[0])
        alone = brute_force(*mine, *how)
        means = pytest.approx((alone["AP"], alone["AP50"]), abs=1e-9) if wanted else (None, None)
        assert (found[:2], found[2]) == (means, wanted)
    assert of_class[2][CLASSES] == 0, "a class without truths is among them"
    expected = brute_force(truths, predictions, *how)
    assert ours == pytest.approx(expected, abs=1e-9)
    assert 0.1 < ours["AP"] < 0.95
    ignored = sum((t["ignored"] | t["crowd"]).sum() for t in truths)
    assert ignored > 3, "the data test what is said"


def test_detections_in_a_crowd_count_for_nothing_and_elsewhere_as_false():
    truth = {
        "box": np.array([[10.0, 10, 50, 50], [100, 10, 190, 190]]),
        "label": np.zeros(2, int),
        "crowd": np.array([False, True]),
    }
    inside = [[110.0, 20, 150, 60], [110, 80, 150, 120], [110, 130, 150, 170]]
    prediction = {
        "box": np.array([*inside, [10, 10, 50, 50]]),
        "label": np.zeros(4, int),
        "score": np.array([0.9, 0.8, 0.7, 0.6]),
    }
    one = average_precision.coco_boxes([truth], [prediction])
    assert (one["AP"], one["AR_100"]) == (1, 1)
    other_class = prediction | {"label": np.array([1, 1, 1, 0])}
    assert average_precision.coco_boxes([truth], [other_class])["AP"] == 1
    # an ignored object takes one detection that is like it alone
    alone = truth | {"crowd": np.zeros(2, bool), "ignored": np.array([False, True])}
    assert average_precision.coco_boxes([alone], [prediction])["AP"] == pytest.approx(0.25)
    without = {name: value[:1] for name, value in truth.items()}
    assert average_precision.coco_boxes([without], [prediction])["AP"] == pytest.approx(0.25)


def test_the_area_of_the_original_decides_the_size_class():
    truth = {"box": np.array([[0.0, 0, 8, 8]]), "label": np.zeros(1, int)}
    prediction = truth | {"score": np.ones(1)}
    sizes = {"AP_small": 900.0, "AP_medium": 5000.0, "AP_large": 10000.0}
    for name, area in sizes.items():
        found = average_precision.coco_boxes([truth | {"area": np.array([area])}], [prediction])
        assert {key: found[key] for key in sizes} == {
            key: 1.0 if key == name else -1 for key in sizes
        }
    # a detection that matches nothing is wrong only in the class of its own area
    away = {"box": np.array([[0.0, 0, 8, 8], [50, 50, 58, 58]]), "label": np.zeros(2, int)}
    away["score"] = np.array([0.5, 0.9])
    large = truth | {"area": np.array([10000.0])}
    assert average_precision.coco_boxes([large], [away])["AP_large"] == 1
    away["area"] = np.array([10000.0, 10000.0])
    assert average_precision.coco_boxes([large], [away])["AP_large"] == 0.5


def one_class(box, **more):
    box = np.array(box, float).reshape(-1, 4)
    return {"box": box, "label": np.zeros(len(box), int)} | {
        k: np.array(v) for k, v in more.items()
    }


@pytest.mark.parametrize("side, name, below", [(32, "medium", "small"), (96, "large", "medium")])
def test_an_area_at_the_border_of_two_size_classes_is_in_both(side, name, below):
    """COCO's classes exclude what is less than their least and more than their most area."""
    truth = one_class([[0, 0, side, side]])
    found = average_precision.coco_boxes([truth], [truth | {"score": np.ones(1)}])
    assert (found[f"AP_{name}"], found[f"AP_{below}"]) == (1, 1)
    # nor is a false detection of that very area outside either
    away = one_class([[0, 0, side, side], [200, 200, 200 + side, 200 + side]], score=[0.5, 0.9])
    found = average_precision.coco_boxes([truth], [away])
    assert (found[f"AP_{name}"], found[f"AP_{below}"]) == (0.5, 0.5)


@pytest.mark.parametrize("second, found", [([0, 0, 10, 10], True), ([0, 8, 10, 18], False)])
def test_of_truths_equally_like_a_detection_the_last_is_taken(second, found):
    """As in COCO's loop; what is like the last alone then finds none."""
    truth = one_class([[0, 0, 10, 10], [0, 8, 10, 18]])
    prediction = one_class([[0, 4, 10, 14], second], score=[0.9, 0.8])  # IoU 6 / 14 with both
    pairs = scored_matching.blocks(
        *([truth], [prediction], average_precision._compare_plain), details={}, least=0.4, most=None
    )
    none = np.zeros(2, bool)
    rows, matched, _ = scored_matching.greedy(
        next(pairs), ignore=none[None], crowd=none, thresholds=np.array([0.4])
    )
    assert (rows.tolist(), matched[0, 0].tolist()) == ([0, 1], [True, found])


@pytest.mark.parametrize("number", [99, 100, 101, 102])
def test_the_hundred_best_detections_count(number):
    """The right one has the lowest score of all."""
    away = np.arange(number - 1)[:, None] * 20 + np.array([100, 100, 110, 110])
    score = np.linspace(1, 0.1, number)
    prediction = one_class([*away, [0, 0, 10, 10]], score=score)
    found = average_precision.coco_boxes([one_class([[0, 0, 10, 10]])], [prediction])
    assert found["AP"] == pytest.approx(1 / number if number <= 100 else 0)
    assert found["AR_100"] == (number <= 100)


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_hundred_best_masks_and_the_twenty_best_poses_count(beyond):
    """Each apart from all others; the one of the lowest score is right."""
    number = 100 + beyond
    prediction = {
        "mask": np.eye(number, dtype=bool)[:, None],  # of one pixel each
        "label": np.zeros(number, int),
        "score": np.linspace(1, 0.1, number),
    }
    truth = {name: prediction[name][-1:] for name in ("mask", "label")}
    found = average_precision.coco_masks([truth], [prediction])
    assert found["AP"] == pytest.approx(0 if beyond else 1 / number)

    number = 20 + beyond
    points = np.tile(1000.0 * np.arange(number)[:, None, None], (1, 1, 2))
    prediction = {
        "points": points,
        "label": np.zeros(number, int),
        "score": np.linspace(1, 0.1, number),
    }
    truth = {"points": points[-1:], "label": np.zeros(1, int), "visible": np.ones((1, 1), bool)}
    truth |= {"box": np.array([[0.0, 0, 40, 40]]), "area": np.array([1600.0])}
    found = average_precision.coco_keypoints([truth], [prediction], sigmas=np.array([0.05]))
    assert found["AP"] == pytest.approx(0 if beyond else 1 / number)


# ---- VOC


def voc_devkit(truths, predictions, label, *, least=0.5):
    """The devkit's evaluation in its own terms: corners are pixels, so that sides are one longer;
    all detections of a class in one list, best first.
    """
    ranked = sorted(
        (
            (-score, image, row)
            for image, one in enumerate(predictions)
            for row, score in enumerate(one["score"])
            if one["label"][row] == label
        ),
    )
    total, used, right, wrong = 0, set(), [], []
    for truth in truths:
        total += int(np.sum((truth["label"] == label) & ~truth["difficult"]))
    for _, image, row in ranked:
        box, best, most = predictions[image]["pixels"][row], None, -np.inf
        for g in np.flatnonzero(truths[image]["label"] == label):
            true = truths[image]["pixels"][g]
            sides = np.minimum(box[2:], true[2:]) - np.maximum(box[:2], true[:2]) + 1
            if (sides <= 0).any():
                continue
            own, other = (np.prod(b[2:] - b[:2] + 1) for b in (box, true))
            overlap = np.prod(sides) / (own + other - np.prod(sides))
            if overlap > most:
                best, most = g, overlap
        hit = most >= least
        difficult = hit and truths[image]["difficult"][best]
        first = hit and (image, best) not in used
        right.append(hit and not difficult and first)
        wrong.append(not hit or (not difficult and not first))
        used |= {(image, best)} if right[-1] else set()
    right, wrong = np.cumsum(right), np.cumsum(wrong)
    recall, precision = right / total, right / np.maximum(right + wrong, 1)
    eleven = np.mean(
        [max(precision[recall >= t - 1e-12], default=0.0) for t in np.linspace(0, 1, 11)]
    )
    envelope = [precision[i:].max() for i in range(len(precision))]
    return eleven, np.sum(np.diff(recall, prepend=0.0) * envelope)


@pytest.mark.parametrize("seed", range(3))
def test_voc_equals_the_devkits_rules(seed, monkeypatch):
    monkeypatch.setattr(scored_matching, "BLOCK", 4)
    generator = np.random.default_rng(seed)
    truths, predictions = random_images(seed + 30, num_images=10)
    for one in truths + predictions:
        one["pixels"] = np.round(one["box"]) + 1  # corners as VOC's files count them
        one["pixels"][:, 2:] = np.maximum(one["pixels"][:, 2:], one["pixels"][:, :2])
        one["box"] = one["pixels"] - [1, 1, 0, 0]
    for truth in truths:
        count = truth["label"].size
        truth |= {"crowd": np.zeros(count, bool), "ignored": np.zeros(count, bool)}
        truth["difficult"] = generator.random(count) < 0.3
    for one in predictions:  # without equals, whose order the devkit leaves open
        one["score"] = generator.random(one["score"].size)
    area, eleven = (
        average_precision.voc_boxes(truths, predictions, num_points=n) for n in (None, 11)
    )
    labels = [label for label in area if label != "mAP"]
    assert len(labels) == 3
    for label in labels:
        expected = voc_devkit(truths, predictions, label)
        assert (eleven[label], area[label]) == pytest.approx(expected, abs=1e-9)
    assert area["mAP"] == pytest.approx(np.mean([area[label] for label in labels]))
    nobody = [t | {"difficult": np.ones(t["label"].size, bool)} for t in truths]
    assert average_precision.voc_boxes(nobody, predictions) == {"mAP": -1.0}


# ---- ICDAR


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_that_of_the_contests_script(seed):
    similarity = np.random.default_rng(seed).random((7, 5)).round(1)
    taken, count = set(), 0
    for truth in range(5):
        for detection in range(7):
            if detection not in taken and similarity[detection, truth] > 0.5:
                taken.add(detection)
                count += 1
                break
    pairs = matching.match(similarity, threshold=0.5)
    assert len(pairs) == count
    assert set(pairs[:, 0].tolist()) == taken


# ---- Boxes without an area


def test_boxes_without_an_area_overlap_nothing():
    point = np.array([[5.0, 5, 5, 5]])
    assert objects.box_iou(point, point, np.zeros(1, bool)) == 0
    assert objects.box_iou(point, np.array([[0.0, 0, 9, 9]]), np.ones(1, bool)) == 0
