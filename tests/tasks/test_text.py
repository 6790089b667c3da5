"""Text recognition and detection: CTC against PyTorch and brute force, decoding, and what each does
with bad data.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.made.digits import Digits
from jaxcnn.data.made.text_scenes import TextScenes
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import alphabet, ctc, polygons
from jaxcnn.runs.check import pre_flight
from jaxcnn.runs.code import load
from jaxcnn.tasks.recognition import TextRecognition, frames_needed
from jaxcnn.tasks.text_detection import TextDetection
from tests.conftest import ROOT
from tests.trials import ROWS, Trial, evaluate, normal, to_jax

FRAMES, GRID = 9, (24, 32)
READER = TextRecognition(alphabet="abc ")
FINDER = TextDetection(shrink_ratio=0.6)


def texts(generator, rows):
    """Up to 4 characters of "abc "; each fits into 9 frames."""
    length = generator.integers(1, 5, rows)
    text = generator.integers(1, 5, (rows, 4)).astype(np.int32)
    text[:, 0] = generator.integers(1, 4, rows)  # no line is blank
    return {"text": np.where(np.arange(4) < length[:, None], text, 0)}


def spelled(batch, frames=FRAMES, classes=5):
    """Logits that spell each text, a blank after each character."""
    text = np.asarray(batch["text"])
    path = np.zeros((len(text), frames), np.int64)
    path[:, : 2 * text.shape[1] : 2] = text
    return 30 * np.eye(classes, dtype=np.float32)[path]


def rectangle(center, size, degrees):
    y, x = np.array([-1, -1, 1, 1]) * size[0] / 2, np.array([-1, 1, 1, -1]) * size[1] / 2
    angle = np.deg2rad(degrees)
    return np.stack(
        [np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x], -1
    ) + np.asarray(center)


def outlines(generator, rows, count=2):
    """One line in the upper half, perhaps one in the lower one, slanted."""
    polygon, mask = np.zeros((rows, count, 4, 2), np.float32), np.zeros((rows, count), np.float32)
    for row in range(rows):
        for number in range(generator.integers(1, count + 1)):
            center = (6 + 12 * number + generator.uniform(-0.5, 0.5), generator.uniform(14, 18))
            size = (generator.uniform(6, 7), generator.uniform(14, 20))
            polygon[row, number] = rectangle(center, size, generator.uniform(-8, 8)) / np.array(
                GRID
            )
            mask[row, number] = 1
    return {"polygons": polygon, "polygons_mask": mask}


def outlines_and_unreadable(generator, rows):
    """As `outlines`; where there is no line in the lower half, there is one that cannot be read."""
    batch = outlines(generator, rows)
    missing = batch["polygons_mask"] == 0
    batch["polygons"][missing] = rectangle((18, 16), (6, 20), 3) / np.array(GRID)
    return batch | {"polygons_ignored": missing.astype(np.float32)}


def drawn(task):
    return lambda batch: np.where(
        np.asarray(task.kernels(to_jax(batch), GRID)), 20.0, -20.0
    ).astype(np.float32)


TRIALS = [
    Trial(
        "recognition",
        READER,
        texts,
        normal(FRAMES, 5),
        spelled,
        {"exact": 1, "cer": 0, "wer": 0, "loss": 0, "skipped": 0},
    ),
    Trial(
        "recognition beam",
        dataclasses.replace(READER, beam=3),
        texts,
        normal(FRAMES, 5),
        spelled,
        {"exact": 1, "cer": 0, "wer": 0},
    ),
    Trial(
        "recognition skip",
        dataclasses.replace(READER, too_long="skip"),
        texts,
        normal(FRAMES, 5),
        spelled,
        {"exact": 1, "skipped": 0},
    ),
    Trial(
        "text detection",
        FINDER,
        outlines_and_unreadable,
        normal(*GRID),
        drawn(FINDER),
        {"hmean": 1, "precision": 1, "recall": 1, "loss": 0},
    ),
    Trial(
        "text detection as published",
        TextDetection(),
        outlines,
        normal(*GRID),
        drawn(TextDetection()),
        {"hmean": 1},
    ),
]


# ---- recognition


def collapse(path):
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def test_loss_equals_the_sum_over_all_paths():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3, 4, 3)).astype(np.float32)
    text = np.array([[1, 2], [2, 2], [1, 0]], np.int32)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for row, wanted in enumerate([(1, 2), (2, 2), (1,)]):
        paths = [path for path in itertools.product(range(3), repeat=4) if collapse(path) == wanted]
        total = sum(
            np.exp(sum(log_probabilities[row, t, label] for t, label in enumerate(path)))
            for path in paths
        )
        loss = TextRecognition(alphabet="ab").loss(
            jnp.asarray(logits), {"text": jnp.asarray(text)}
        )[row]
        assert float(loss) == pytest.approx(-np.log(total), rel=1e-5)


def test_loss_and_gradient_equal_torch():
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(1)
    logits, batch = 3 * normal(FRAMES, 5)(generator, ROWS), texts(generator, ROWS)
    theirs = torch.tensor(logits, requires_grad=True)
    lengths = torch.tensor((batch["text"] > 0).sum(1))
    loss = torch.nn.functional.ctc_loss(
        theirs.log_softmax(-1).transpose(0, 1),
        torch.tensor(batch["text"]),
        torch.full((ROWS,), FRAMES),
        lengths,
        reduction="none",
    )
    loss.sum().backward()
    ours, gradient = jax.value_and_grad(jax.jit(lambda x: READER.loss(x, to_jax(batch)).sum()))(
        jnp.asarray(logits)
    )
    assert float(ours) == pytest.approx(float(loss.detach().sum()), rel=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-5)


def test_texts_too_long_are_skipped_and_counted():
    """Of 3 frames, "aab" needs 4 and "abc" 3; the skipped line has no gradient and counts as
    misread.
    """
    task = TextRecognition(alphabet="abc", too_long="skip")
    batch = to_jax(
        {"text": np.array([[1, 1, 2], [1, 2, 3]], np.int32), "mask": np.ones(2, np.float32)}
    )
    logits = 9 * jax.nn.one_hot(jnp.asarray([[1, 2, 3], [1, 2, 3]]), 4, dtype=jnp.float32)
    loss, gradient = (
        jax.jit(task.loss)(logits, batch),
        jax.grad(jax.jit(lambda x: task.loss(x, batch).sum()))(logits),
    )
    assert float(loss[0]) == 0
    assert float(loss[1]) > 0
    assert not gradient[0].any()
    assert gradient[1].any()
    summary = task.summarize(*evaluate(task, logits, batch))
    assert (summary["skipped"], summary["exact"], summary["count"]) == (1, 0.5, 2)


def test_frames_needed_by_a_batch_are_those_of_each_text():
    generator = np.random.default_rng(0)
    text = np.where(
        np.arange(6) < generator.integers(0, 7, (200, 1)), generator.integers(1, 3, (200, 6)), 0
    )
    expected = [ctc.frames_needed(row[row > 0].tolist()) for row in text]
    np.testing.assert_array_equal(frames_needed(text), expected)
    np.testing.assert_array_equal(frames_needed(jnp.asarray(text)), expected)


def test_error_rates_count_edits_over_all_lines():
    """Read "ab" for "abc" (one deletion), "b a" for "c a" (one substitution, one of two words): 2
    of 6 characters, 2 of 3 words.
    """
    task = READER
    truth, read = (
        alphabet.encode(lines, alphabet=task.alphabet, length=4)
        for lines in (["abc", "c a"], ["ab", "b a"])
    )
    batch = to_jax({"text": truth, "mask": np.ones(2, np.float32)})
    summary = task.summarize(*evaluate(task, jnp.asarray(spelled({"text": read})), batch))
    assert (summary["exact"], summary["cer"], summary["wer"]) == (
        0,
        pytest.approx(2 / 6),
        pytest.approx(2 / 3),
    )


def test_beam_reads_what_greedy_decoding_misses():
    """Two frames of blank .6 and "a" .4: the likeliest path is blank (.36), but the paths of "a"
    sum to .64 (Graves 2006, section 3.2).
    """
    logits = jnp.log(jnp.asarray([[[0.6, 0.4]] * 2]))
    greedy, beam = TextRecognition(alphabet="a"), TextRecognition(alphabet="a", beam=4)
    rows = [
        jax.tree.map(lambda x: np.asarray(x)[0], task.predict(logits)) for task in (greedy, beam)
    ]
    assert greedy.describe(rows[0], names=()) == {"text": "", "probability": pytest.approx(0.36)}
    assert beam.describe(rows[1], names=()) == {"text": "a", "probability": pytest.approx(0.64)}
    batch = to_jax({"text": np.array([[1]], np.int32), "mask": np.ones(1, np.float32)})
    assert [task.summarize(*evaluate(task, logits, batch))["exact"] for task in (greedy, beam)] == [
        0,
        1,
    ]


def test_an_evaluation_without_characters_has_no_error_rate():
    batch = to_jax({"text": np.zeros((2, 4), np.int32), "mask": np.ones(2, np.float32)})
    summary = READER.summarize(
        *evaluate(READER, jnp.asarray(spelled({"text": np.zeros((2, 4), np.int32)})), batch)
    )
    assert summary["exact"] == 1
    assert np.isnan(summary["cer"])
    assert np.isnan(summary["wer"])


def test_ensemble_averages_the_frames():
    generator = np.random.default_rng(0)
    one, other = (jnp.asarray(normal(FRAMES, 5)(generator, 3)) for _ in range(2))
    mean = (jax.nn.softmax(one) + jax.nn.softmax(other)) / 2
    np.testing.assert_allclose(jax.nn.softmax(READER.ensemble([one, other])), mean, rtol=1e-5)


@pytest.mark.parametrize(
    "batch, says",
    [
        ({"text": np.array([[1, 5, 0]])}, r"text\[0, 1\] is 5, an unknown character; .* 1 do not"),
        ({"text": np.array([[1, 0], [-1, 0]])}, r"text\[1, 0\] is -1, an unknown"),
        ({"text": np.array([[1, 2], [0, 2]])}, r"text\[1\] is \[0, 2\]; 0 is padding"),
        ({"text": np.array([1, 2])}, r"shape \(2,\)"),
        ({"text": np.array([[1.0, 2.0]])}, "dtype float64"),
        (
            {"text": np.array([[1, 2, 3], [2, 2, 3]]), "image": np.zeros((2, 8, 12, 1), np.uint8)},
            r"text\[1\] 'bbc' needs 4 frames.*has 3 ",
        ),
        (
            {"text": np.array([[1, 2]]), "image": np.full((1, 8, 12, 1), 255.0, np.float32)},
            "unscaled",
        ),
    ],
)
def test_bad_texts_are_refused(batch, says):
    with pytest.raises(DataError, match=says):
        READER.check(batch)


def test_good_texts_pass():
    image = np.zeros((2, 8, 12, 1), np.uint8)
    READER.check({"text": np.array([[1, 2, 3], [2, 2, 0]], np.int32), "image": image})
    dataclasses.replace(READER, too_long="skip").check(
        {"text": np.array([[1, 2, 3], [2, 2, 3]]), "image": image}
    )


@pytest.mark.parametrize(
    "logits, batch, says",
    [
        ((1, 3, 4), {"text": np.array([[1]])}, "gives 4 labels a frame; .* must give 5"),
        (
            (1, 5, 5),
            {"text": np.array([[1]]), "image": np.zeros((1, 8, 12, 1), np.float32)},
            "5 frames of an image 12 wide",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused(logits, batch, says):
    with pytest.raises(ConfigError, match=says):
        READER.loss(jnp.zeros(logits), to_jax(batch))


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: TextRecognition(alphabet=""), "is empty"),
        (lambda: TextRecognition(alphabet="abca"), r"repeats \['a'\]"),
        (lambda: TextRecognition(alphabet="ab", too_long="drop"), "too_long is 'drop'"),
        (lambda: TextRecognition(alphabet="ab", beam=0), "beam=0"),
        (lambda: TextDetection(shrink_ratio=0.0), "shrink_ratio is 0.0"),
        (lambda: TextDetection(degenerate="drop"), "degenerate is 'drop'"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_lines_become_numbers_and_back():
    rows = alphabet.encode(["cab", "", "b b"], alphabet="abc ", length=4)
    np.testing.assert_array_equal(rows, [[3, 1, 2, 0], [0, 0, 0, 0], [2, 4, 2, 0]])
    assert rows.dtype == np.int32
    assert alphabet.decode(rows, alphabet="abc ") == ["cab", "", "b b"]
    with pytest.raises(
        DataError, match=r"line 1 'bäd' has \['d', 'ä'\], which the alphabet 'abc' lacks"
    ):
        alphabet.encode(["abc", "bäd"], alphabet="abc", length=4)
    with pytest.raises(DataError, match="line 0 'abcab' has 5 characters; at most 4"):
        alphabet.encode(["abcab"], alphabet="abc", length=4)


# ---- detection


def test_loss_is_cross_entropy_with_the_hardest_negatives_and_dice():
    """Written out cell by cell for random logits."""
    generator = np.random.default_rng(0)
    batch, logits = outlines(generator, 3), 2 * normal(*GRID)(generator, 3)
    found = jax.jit(FINDER.loss)(jnp.asarray(logits), to_jax(batch))
    for row in range(3):
        kernel = np.asarray(FINDER.kernels(to_jax(batch), GRID))[row]
        probability = 1 / (1 + np.exp(-logits[row].astype(np.float64)))
        errors = -np.log(np.where(kernel, probability, 1 - probability))
        hardest = sorted(errors[~kernel], reverse=True)[: 3 * kernel.sum()]
        balanced = (errors[kernel].sum() + sum(hardest)) / (4 * kernel.sum())
        dice = 1 - (2 * probability[kernel].sum() + 1) / (probability.sum() + kernel.sum() + 1)
        assert float(found[row]) == pytest.approx(balanced + dice, rel=1e-4)


def test_kernels_are_the_shrunk_rectangles():
    shape = rectangle((12, 16), (10, 20), 30)
    batch = to_jax(
        {
            "polygons": (shape / np.array(GRID)).astype(np.float32)[None, None],
            "polygons_mask": np.ones((1, 1), np.float32),
        }
    )
    distance = 200 * (1 - 0.6**2) / 60
    expected = polygons.fill(
        jnp.asarray(rectangle((12, 16), (10 - 2 * distance, 20 - 2 * distance), 30), jnp.float32),
        GRID,
    )
    np.testing.assert_array_equal(FINDER.kernels(batch, GRID)[0], expected)


@pytest.mark.parametrize("degrees", [-30, -7, 0, 15, 40])
@pytest.mark.parametrize("ratio", [0.4, 0.7])
def test_a_drawn_kernel_gives_its_rectangle_back(degrees, ratio):
    task = TextDetection(shrink_ratio=ratio)
    shape = rectangle((50, 48), (16, 60), degrees)
    batch = to_jax(
        {
            "polygons": (shape / 96).astype(np.float32)[None, None],
            "polygons_mask": np.ones((1, 1), np.float32),
        }
    )
    [(found, score)] = task.find(np.asarray(task.kernels(batch, (96, 96)))[0].astype(float))
    assert polygons.pairwise_iou(found[None] * 96, shape[None])[0, 0] > 0.8
    assert score == 1
    np.testing.assert_allclose(found * 96, shape, atol=3)  # the corners come in the same order


def test_neighbours_come_apart_and_specks_are_dropped():
    """Two lines whose outlines touch are two kernels; a single cell and a faint part are
    no text.
    """
    shapes = np.stack([rectangle((8, 16), (8, 24), 0), rectangle((16, 16), (8, 24), 0)]) / np.array(
        GRID
    )
    batch = to_jax(
        {"polygons": shapes.astype(np.float32)[None], "polygons_mask": np.ones((1, 2), np.float32)}
    )
    kernel = np.asarray(FINDER.kernels(batch, GRID))[0].astype(float)
    kernel[0, 0] = 1.0
    kernel[22, 20:30] = 0.55
    assert len(FINDER.find(kernel)) == 3
    found = dataclasses.replace(FINDER, min_score=0.6).find(kernel)
    assert len(found) == 2
    iou = polygons.pairwise_iou(np.stack([corners for corners, _ in found]), shapes)
    assert (iou.max(0) > 0.75).all()
    assert iou.max() <= 1


def test_summary_counts_matches_one_to_one():
    """Three lines; one found, one found twice over in two halves (no IoU of half), one missed, and
    a false one.
    """
    shapes = np.stack(
        [rectangle((4, 16), (6, 24), 0), rectangle((14, 16), (6, 24), 0), np.zeros((4, 2))]
    ) / np.array(GRID)
    batch = to_jax(
        {
            "polygons": shapes.astype(np.float32)[None],
            "polygons_mask": np.array([[1, 1, 0]], np.float32),
        }
    )
    kernel = np.asarray(FINDER.kernels(batch, GRID))[0]
    kernel = np.where(kernel, 20.0, -20.0)
    kernel[10:18, 15:17] = -20  # parts the second
    kernel[21:23, 2:6] = 20
    batch["mask"] = jnp.ones(1)
    summary = FINDER.summarize(*evaluate(FINDER, jnp.asarray(kernel, jnp.float32)[None], batch))
    assert (summary["polygons"], summary["detections"]) == (2, 4)
    assert (summary["precision"], summary["recall"], summary["hmean"]) == (
        0.25,
        0.5,
        pytest.approx(1 / 3),
    )


def test_degenerate_polygons_are_skipped_and_counted():
    task = dataclasses.replace(FINDER, degenerate="skip")
    line, good = (
        np.tile([[0.5, 0.2], [0.5, 0.8]], (2, 1)),
        rectangle((6, 16), (8, 20), 0) / np.array(GRID),
    )
    bow_tie = good[[0, 2, 1, 3]] + 0.3
    batch = to_jax(
        {
            "polygons": np.stack([line, good, bow_tie]).astype(np.float32)[None],
            "polygons_mask": np.ones((1, 3), np.float32),
        }
    )
    batch["mask"] = jnp.ones(1)
    alone = {"polygons": batch["polygons"][:, 1:2], "polygons_mask": jnp.ones((1, 1))}
    np.testing.assert_array_equal(task.kernels(batch, GRID), task.kernels(alone, GRID))
    logits = jnp.asarray(drawn(task)(batch))
    summary = task.summarize(*evaluate(task, logits, batch))
    assert (summary["skipped"], summary["polygons"], summary["hmean"]) == (2, 1, 1)
    task.check(jax.device_get(batch))


def test_ignored_polygons_count_as_nothing():
    """Cells in them have no gradient; what is found there is neither right nor wrong."""
    shapes = np.stack([rectangle((6, 16), (8, 20), 0), rectangle((18, 16), (8, 20), 0)]) / np.array(
        GRID
    )
    both = {
        "polygons": shapes.astype(np.float32)[None],
        "polygons_mask": np.ones((1, 2), np.float32),
        "mask": np.ones(1, np.float32),
    }
    logits = jnp.asarray(drawn(FINDER)(both))
    batch = to_jax(
        both
        | {
            "polygons_mask": np.array([[1, 0]], np.float32),
            "polygons_ignored": np.array([[0, 1]], np.float32),
        }
    )
    strict = to_jax(both | {"polygons_mask": np.array([[1, 0]], np.float32)})
    summaries = [FINDER.summarize(*evaluate(FINDER, logits, rows)) for rows in (batch, strict)]
    assert [(s["precision"], s["recall"], s["detections"]) for s in summaries] == [
        (1, 1, 1),
        (0.5, 1, 2),
    ]
    assert [float(jax.jit(FINDER.loss)(logits, rows)[0]) < 1e-3 for rows in (batch, strict)] == [
        True,
        False,
    ]
    gradient = jax.grad(jax.jit(lambda x: FINDER.loss(x, batch).sum()))(
        jnp.asarray(normal(*GRID)(np.random.default_rng(0), 1))
    )
    assert not gradient[0, 14:22, 6:26].any()


def test_an_image_without_text_has_a_finite_loss_and_gradient():
    batch = to_jax(
        {
            "polygons": np.zeros((1, 2, 4, 2), np.float32),
            "polygons_mask": np.zeros((1, 2), np.float32),
        }
    )
    logits = jnp.asarray(normal(*GRID)(np.random.default_rng(0), 1))
    loss, gradient = jax.value_and_grad(jax.jit(lambda x: FINDER.loss(x, batch).sum()))(logits)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert float(jnp.sum(gradient)) > 0  # all cells are pushed down


def test_describe_gives_boxes_and_polygons():
    shape = rectangle((12, 16), (8, 20), 10) / np.array(GRID)
    batch = to_jax(
        {
            "polygons": shape.astype(np.float32)[None, None],
            "polygons_mask": np.ones((1, 1), np.float32),
        }
    )
    row = jax.tree.map(
        lambda x: np.asarray(x)[0], FINDER.predict(jnp.asarray(drawn(FINDER)(batch)))
    )
    [found] = FINDER.describe(row, names=("text",))["objects"]
    assert (found["label"], found["name"]) == (0, "text")
    polygon = np.array(found["polygon"])
    np.testing.assert_allclose(found["box"], [*polygon.min(0), *polygon.max(0)])
    assert FINDER.describe({"kernel": np.zeros(GRID)}, names=("text",)) == {"objects": []}


@pytest.mark.parametrize(
    "polygon, mask, says",
    [
        (
            np.zeros((1, 1, 4, 2)),
            np.ones((1, 1)),
            r"polygons\[0, 0\].* has no area or is not convex",
        ),
        (np.array([[[[0, 0], [1, 1], [0, 1], [1, 0]]]]) * 0.5, np.ones((1, 1)), "not convex"),
        (np.array([[[[0, 0], [0, 64], [32, 64], [32, 0]]]]), np.ones((1, 1)), "Divide pixels"),
        (np.full((1, 1, 4, 2), np.nan), np.ones((1, 1)), "not in or near the image"),
        (np.zeros((1, 1, 8)), np.ones((1, 1)), r"shape \(1, 1, 8\)"),
        (np.zeros((1, 2, 4, 2)), np.ones((1, 1)), r"polygons_mask \(1, 1\)"),
    ],
)
def test_bad_polygons_are_refused(polygon, mask, says):
    with pytest.raises(DataError, match=says):
        FINDER.check(
            {"polygons": polygon.astype(np.float32), "polygons_mask": mask.astype(np.float32)}
        )


def test_polygons_that_do_not_exist_are_not_checked():
    FINDER.check(
        {
            "polygons": np.full((2, 1, 4, 2), np.nan, np.float32),
            "polygons_mask": np.zeros((2, 1), np.float32),
        }
    )


# ---- experiments of accelerator scale: shapes of a whole step, without data


@pytest.mark.parametrize(
    "name, data",
    [("emnist_crnn", None), ("icdar_text_detection", TextScenes(Digits(), (640, 640)))],
)
def test_large_experiments_pass_their_pre_flight(name, data):
    e = load(ROOT / "experiments" / f"{name}.py", overrides=[])
    result = pre_flight(e if data is None else dataclasses.replace(e, data=data))
    assert result["params"] > 5e6
    assert result["train_examples"] == e.data.size("train") if data is None else result["steps"] > 0


# ---- what is reached without looking (of the experiments' own data: benchmarks/blind_text.py)


def test_one_text_for_all_lines_is_far_below_the_bars():
    """Lines of 2 to 6 random digits, all read as four ones."""
    generator = np.random.default_rng(0)
    reader = TextRecognition(alphabet="0123456789")
    length = generator.integers(2, 7, 400)
    text = np.where(np.arange(6) < length[:, None], generator.integers(1, 11, (400, 6)), 0).astype(
        np.int32
    )
    blind = {"text": text, "read": np.tile([1, 1, 1, 1], (400, 1))}
    summary = reader.summarize({"count": 400, "loss": 0.0, "skipped": 0}, blind)
    assert summary["exact"] < 0.01
    assert summary["cer"] > 0.7
