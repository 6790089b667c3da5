"""The captioning task: its loss against PyTorch, its metrics on known sentences, what it
refuses.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics import text_overlap as metrics
from jaxcnn.ops.decoding import END, PAD, SPECIAL_WORDS, START
from jaxcnn.tasks.captioning import Captioning, majority_caption, score_captions
from tests.trials import Trial

V, R, L = 9, 3, 8


def random_captions(generator, rows, *, missing=True):
    """Captions of 1 to 6 words; sometimes fewer than R of them."""
    captions = np.zeros((rows, R, L), np.int32)
    for row in captions:
        for caption in row[: generator.integers(1, R + 1) if missing else R]:
            count = generator.integers(1, L - 1)
            caption[: count + 2] = [START, *generator.integers(3, V, count), END]
    return {"captions": captions}


def random_outputs(generator, rows):
    return {
        "logits": generator.normal(size=(rows, R, L - 1, V)).astype(np.float32),
        "tokens": random_captions(generator, rows, missing=False)["captions"][:, 0, 1:],
    }


def perfect_outputs(batch):
    captions = batch["captions"]
    return {
        "logits": 40 * np.eye(V, dtype=np.float32)[captions[..., 1:]],
        "tokens": captions[:, 0, 1:],
    }


BEST = {"exact": 1, "bleu1": 1, "bleu2": 1, "bleu3": 1, "bleu4": 1, "loss": 0, "skipped": 0}
TRIALS = [
    Trial("captioning", Captioning(V), random_captions, random_outputs, perfect_outputs, BEST),
    Trial(
        "captioning smoothed",
        Captioning(V, label_smoothing=0.1, metric="exact"),
        random_captions,
        random_outputs,
        perfect_outputs,
        {"exact": 1, "bleu4": 1},
    ),
]


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_the_loss_equals_torch(generator, smoothing):
    torch = pytest.importorskip("torch")
    batch, logits = random_captions(generator, 12), 3 * random_outputs(generator, 12)["logits"]
    ours = Captioning(V, label_smoothing=smoothing).loss(
        {"logits": jnp.asarray(logits)}, {"captions": jnp.asarray(batch["captions"])}
    )
    for row, theirs in enumerate(ours):
        target = torch.tensor(batch["captions"][row, :, 1:].reshape(-1)).long()
        flat = torch.tensor(logits[row].reshape(-1, V))
        expected = torch.nn.functional.cross_entropy(
            flat, target, ignore_index=PAD, label_smoothing=smoothing
        )
        np.testing.assert_allclose(theirs, expected.numpy(), rtol=1e-5)


def test_missing_references_and_padding_have_no_gradient(generator):
    captions = jnp.asarray(random_captions(generator, 12)["captions"])
    logits = jnp.asarray(random_outputs(generator, 12)["logits"])
    gradient = jax.grad(lambda x: Captioning(V).loss({"logits": x}, {"captions": captions}).sum())(
        logits
    )
    np.testing.assert_array_equal(jnp.any(gradient != 0, axis=-1), captions[..., 1:] != PAD)
    assert (
        Captioning(V).loss({"logits": logits}, {"captions": jnp.zeros_like(captions)}).tolist()
        == [0.0] * 12
    )


def test_the_summary_scores_words_against_all_references():
    names = (*SPECIAL_WORDS, "a", "bag", "left", "of", "boot")
    number = {name: i for i, name in enumerate(names)}

    def tokens(sentence, length=7):
        return [*(number[word] for word in sentence.split()), END, *[PAD] * length][:length]

    said = ["a bag left of a boot", "a boot", "a boot left", "a"]
    known = [
        ["a boot", "a bag left of a boot"],
        ["a bag"],
        ["a boot left of a boot", "a bag left"],
        [],
    ]
    references = [
        [[START, *tokens(s)] for s in sentences] + [[PAD] * 8] * (2 - len(sentences))
        for sentences in known
    ]
    records = {"tokens": np.array([tokens(s) for s in said]), "references": np.array(references)}
    task = Captioning(len(names))
    summary = task.summarize({"count": np.int64(4), "loss": np.float64(2.0)}, records)
    pairs = said[:3], known[:3]
    assert summary["exact"] == pytest.approx(1 / 3)
    assert (summary["loss"], summary["count"], summary["skipped"]) == (0.5, 4, 1)
    expected = {
        **metrics.bleu(*pairs),
        "cider": metrics.cider_d(*pairs),
        "rouge_l": metrics.rouge_l(*pairs),
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected)
    assert task.describe({"tokens": records["tokens"][0]}, names=names) == {
        "text": "a bag left of a boot"
    }
    none = task.summarize(
        {"count": np.int64(1), "loss": np.float64(0.0)},
        {name: x[3:] for name, x in records.items()},
    )
    assert (none["exact"], none["cider"], none["skipped"]) == (None, None, 1)


def test_the_blind_baseline_is_the_most_frequent_caption():
    one, other = [START, 4, 5, END], [START, 5, END, PAD]
    captions = np.array([[one, other], [other, [PAD] * 4], [[PAD] * 4] * 2, [[PAD] * 4] * 2])
    assert majority_caption(captions) == ("<5>",)
    assert (
        score_captions([("<5>",)] * 2, [[("<4>", "<5>"), ("<5>",)], [("<4>", "<5>")]])["exact"]
        == 0.5
    )


def test_an_ensemble_averages_probabilities_and_votes_on_captions(generator):
    outputs = [jax.tree.map(jnp.asarray, random_outputs(generator, 5)) for _ in range(3)]
    first, second, third = (o["tokens"] for o in outputs)
    outputs[1]["tokens"] = second = second.at[2].set(third[2])
    joined = Captioning(V).ensemble(outputs)
    mean = sum(jax.nn.softmax(o["logits"]) for o in outputs) / 3
    np.testing.assert_allclose(jax.nn.softmax(joined["logits"]), mean, rtol=1e-5)
    np.testing.assert_array_equal(joined["tokens"], first.at[2].set(third[2]))
    assert set(Captioning(V).ensemble([{"tokens": first}] * 2)) == {"tokens"}


GOOD = np.array([[[START, 4, END, PAD], [PAD] * 4]])


@pytest.mark.parametrize(
    "captions, says",
    [
        (GOOD[0], r"shape \(2, 4\)"),
        (GOOD.astype(np.float32), "dtype float32; expected integers"),
        (
            [[[START, V, END, PAD]]],
            rf"captions\[0, 0, 1\] is {V}; tokens lie in \[0, {V}\).*vocabulary_size",
        ),
        ([[[START, 4, END]], [[START, -1, END]]], r"captions\[1, 0, 1\] is -1"),
        ([[[4, 5, END, PAD]]], r"captions\[0, 0, 0\] is 4; a caption has one start"),
        ([[[START, START, END, PAD]]], r"captions\[0, 0, 1\] is 1; a caption has one start"),
        ([[[START, 4, 5, 6]]], "lacks an end"),
        ([[[START, 4, PAD, END]]], r"captions\[0, 0, 2\] is 0; padding"),
        ([[[START, END, 4, PAD]]], r"captions\[0, 0, 2\] is 4; padding"),
        ([[[START, 4, END]], [[PAD] * 3]], r"captions\[1\] are all padding; give at least one"),
    ],
)
def test_bad_captions_are_refused(captions, says):
    with pytest.raises(DataError, match=says):
        Captioning(V).check({"captions": np.asarray(captions)})


def test_good_captions_pass(generator):
    Captioning(V).check({"captions": GOOD, "image": np.zeros((1, 4, 4, 1), np.uint8)})
    Captioning(V).check(random_captions(generator, 50))
    with pytest.raises(DataError, match="Divide by 255"):
        Captioning(V).check({"captions": GOOD, "image": np.full((1, 4, 4, 1), 255.0, np.float32)})


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Captioning(2), "vocabulary_size is 2"),
        (lambda: Captioning(V, 1.0), "label_smoothing is 1.0"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
