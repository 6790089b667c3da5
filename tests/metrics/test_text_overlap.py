"""Caption scores: the examples of the papers, values by hand, CIDEr-D as dense vectors, and peers
where they are installed.
"""

import itertools
import math

import numpy as np
import pytest

from jaxcnn.errors import DataError
from jaxcnn.metrics import text_overlap

WORDS = ["a", "cat", "dog", "sits", "on", "the", "red", "mat", "beside", "small", "lamp"]


def random_corpus(seed, size=8):
    generator = np.random.default_rng(seed)

    def sentence():
        return " ".join(generator.choice(WORDS, generator.integers(4, 11)))

    references = [[sentence() for _ in range(3)] for _ in range(size)]
    predictions = [
        " ".join(np.where(generator.random(len(s[0].split())) < 0.8, s[0].split(), "cat"))
        for s in references
    ]
    return predictions, references


def test_bleu_clips_counts_as_in_the_paper():
    """Papineni et al. 2002, example 2 of section 2.1: modified unigram precision 2/7."""
    references = [["The cat is on the mat.", "There is a cat on the mat."]]
    assert text_overlap.bleu(["the the the the the the the."], references)[
        "bleu1"
    ] == pytest.approx(2 / 7)


def test_bleu_of_the_paper_s_first_example():
    """Example 1: unigram precisions 17/18 and 8/14 (section 2.1), bigram 10/17 and 1/13 (section
    2.1.1).
    """
    references = [
        [
            "It is a guide to action that ensures that the military will forever heed Party "
            "commands",
            "It is the guiding principle which guarantees the military forces always being under "
            "the command of the Party",
            "It is the practical guide for the army always to heed the directions of the party",
        ]
    ]
    first = (
        "It is a guide to action which ensures that the military always obeys the commands of "
        "the party"
    )
    second = "It is to insure the troops forever hearing the activity guidebook that party direct"
    ours = text_overlap.bleu([first], references)
    assert ours["bleu1"] == pytest.approx(17 / 18)
    assert ours["bleu2"] == pytest.approx(math.sqrt(17 / 18 * 10 / 17))
    brief = math.exp(1 - 16 / 14)  # the nearest reference has 16 words
    assert text_overlap.bleu([second], references)["bleu2"] == pytest.approx(
        brief * math.sqrt(8 / 14 * 1 / 13)
    )


@pytest.mark.parametrize("lengths, nearest", [((2, 5), 5), ((3, 5), 3), ((6, 3), 3), ((4, 9), 4)])
def test_bleu_is_shortened_by_the_nearest_reference(lengths, nearest):
    """Of two as near the shorter; the prediction has four words, all of them in the longer one."""
    words = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
    references = [" ".join(words[:length]) for length in lengths]
    found = text_overlap.bleu(["a b c d"], [references])["bleu1"]
    assert found == pytest.approx(min(1, np.exp(1 - nearest / 4)))


def test_rouge_by_hand():
    """Lin 2004, section 3.1: "police kill the gunman" shares 2 words in order with "police killed
    the gunman" less one: 3 of 4.
    """
    reference = ["police killed the gunman"]
    for sentence, shared in (("police kill the gunman", 3), ("the gunman kill police", 2)):
        # precision = recall = F
        assert text_overlap.rouge_l([sentence], [reference]) == pytest.approx(shared / 4)
    precision, recall = 2 / 2, 2 / 4
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert text_overlap.rouge_l(["the gunman"], [reference]) == pytest.approx(expected)


def test_cider_equals_dense_vectors():
    """The definition with matrices: rows are sentences, columns all n-grams."""
    predictions, references = random_corpus(0)
    split = [sentence.split() for sentence in predictions]
    sources = [[sentence.split() for sentence in group] for group in references]
    scores = np.zeros((len(split), 4))
    for n in range(1, 5):
        columns = list(itertools.product(WORDS, repeat=n)) if n < 3 else None
        grams = lambda words, n=n: [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]  # noqa: E731
        columns = columns or sorted(
            {gram for words in itertools.chain(split, *sources) for gram in grams(words)}
        )
        place = {gram: i for i, gram in enumerate(columns)}

        def count(words, grams=grams, place=place):
            return np.bincount([place[gram] for gram in grams(words)], minlength=len(place))

        present = np.array(
            [np.max([count(words) > 0 for words in group], axis=0) for group in sources]
        )
        idf = np.log(len(sources) / np.maximum(present.sum(axis=0), 1))
        for i, words in enumerate(split):
            g = count(words) * idf
            for source in sources[i]:
                r = count(source) * idf
                cosine = np.minimum(g, r) @ r / max(np.linalg.norm(g) * np.linalg.norm(r), 1e-300)
                scores[i, n - 1] += (
                    cosine * np.exp(-((len(words) - len(source)) ** 2) / 72) / len(sources[i])
                )
    assert text_overlap.cider_d(predictions, references) == pytest.approx(10 * scores.mean())


def test_a_perfect_prediction_scores_best():
    _, references = random_corpus(1)
    alone = [[group[0]] for group in references]
    predictions = [group[0] for group in references]
    assert text_overlap.bleu(predictions, references)["bleu4"] == pytest.approx(1)
    assert text_overlap.rouge_l(predictions, references) == pytest.approx(1)
    assert text_overlap.cider_d(predictions, alone) == pytest.approx(10)
    assert text_overlap.exact_match(predictions, references) == 1
    shuffled = predictions[1:] + predictions[:1]
    assert text_overlap.exact_match(shuffled, references) == 0
    assert text_overlap.cider_d(shuffled, alone) < 4


def test_bleu_equals_nltk():
    translate = pytest.importorskip("nltk.translate.bleu_score")
    predictions, references = random_corpus(2)
    ours = text_overlap.bleu(predictions, references)
    split = [[source.split() for source in group] for group in references]
    for n in range(1, 5):
        theirs = translate.corpus_bleu(split, [p.split() for p in predictions], weights=[1 / n] * n)
        assert ours[f"bleu{n}"] == pytest.approx(theirs)


def test_scores_equal_pycocoevalcap():
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu  # pyright: ignore
    from pycocoevalcap.cider.cider import Cider  # pyright: ignore
    from pycocoevalcap.rouge.rouge import Rouge  # pyright: ignore

    predictions, references = random_corpus(3)
    truth, found = (
        dict(enumerate(references)),
        {i: [sentence] for i, sentence in enumerate(predictions)},
    )
    assert text_overlap.cider_d(predictions, references) == pytest.approx(
        Cider().compute_score(truth, found)[0]
    )
    assert text_overlap.rouge_l(predictions, references) == pytest.approx(
        Rouge().compute_score(truth, found)[0]
    )
    theirs = Bleu(4).compute_score(truth, found, verbose=0)[0]
    assert list(text_overlap.bleu(predictions, references).values()) == pytest.approx(
        theirs, rel=1e-6
    )


def test_words_and_empty_sentences():
    assert text_overlap.tokenize("A dog's well-kept, RED ball!") == (
        "a",
        "dog's",
        "well-kept",
        "red",
        "ball",
    )
    assert text_overlap.bleu(["", "a"], [["x y"], ["b"]]) == {f"bleu{n}": 0.0 for n in range(1, 5)}
    assert text_overlap.rouge_l([""], [["x"]]) == 0
    assert text_overlap.cider_d(["", "a b"], [["x"], ["a b"]]) >= 0


@pytest.mark.parametrize(
    "predictions, references, says",
    [
        ([], [], "at least one"),
        (["a"], ["a b"], "expected a list"),
        (["a"], [[]], r"references\[0\]"),
    ],
)
def test_bad_input_is_refused(predictions, references, says):
    with pytest.raises(DataError, match=says):
        text_overlap.bleu(predictions, references)
