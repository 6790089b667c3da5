"""Likeness of sentences to references: BLEU, ROUGE-L, CIDEr-D. Pure Python, on the host.

`predictions` are sentences, `references` a list of one or more sentences for each. Sentences are
strings, split by `tokenize`, or sequences of words taken as they are.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from jaxcnn.errors import DataError

Sentence = str | Sequence[str]


def tokenize(sentence: Sentence) -> tuple[str, ...]:
    """Words in lower case without punctuation; apostrophes and hyphens within a word stay."""
    return (
        tuple(re.findall(r"\w+(?:['’-]\w+)*", sentence.lower()))
        if isinstance(sentence, str)
        else tuple(sentence)
    )


def bleu(
    predictions: Sequence[Sentence], references: Sequence[Sequence[Sentence]], *, longest: int = 4
) -> dict[str, float]:
    """bleu1 … bleu4 of the corpus, in [0, 1], unsmoothed.

    The geometric mean of clipped n-gram precisions, summed over all sentences, times exp(1 - r / c)
    where the predictions' length c is below r, the sum of the nearest reference lengths (the
    shorter of two as near): Papineni et al., "BLEU", 2002, section 2.3.
    """
    hits, totals = [0] * longest, [0] * longest
    length = reference_length = 0
    for prediction, sources in _pairs(predictions, references):
        length += len(prediction)
        reference_length += min(
            (abs(len(source) - len(prediction)), len(source)) for source in sources
        )[1]
        for n in range(1, longest + 1):
            found = _ngrams(prediction, n)
            allowed: Counter = Counter()
            for source in sources:
                allowed |= _ngrams(source, n)  # the largest count in any one reference
            hits[n - 1] += (found & allowed).total()
            totals[n - 1] += found.total()
    penalty = min(1.0, math.exp(1 - reference_length / length)) if length else 0.0
    scores, logarithm = {}, 0.0
    for n in range(1, longest + 1):
        logarithm += math.log(hits[n - 1] / totals[n - 1]) if hits[n - 1] else -math.inf
        scores[f"bleu{n}"] = penalty * math.exp(logarithm / n)
    return scores


def rouge_l(
    predictions: Sequence[Sentence], references: Sequence[Sequence[Sentence]], *, beta: float = 1.2
) -> float:
    """Mean over sentences of the F-measure of the longest common subsequence, in [0, 1].

    Best precision and best recall over the references, recall weighed `beta` times: Lin, "ROUGE",
    2004, section 3, with the caption evaluation's beta (Chen et al., "Microsoft COCO captions: data
    collection and evaluation server", 2015).
    """
    scores = []
    for prediction, sources in _pairs(predictions, references):
        common = [_longest_common_subsequence(prediction, source) for source in sources]
        precision = max(common) / max(len(prediction), 1)
        recall = max(
            shared / max(len(source), 1) for shared, source in zip(common, sources, strict=True)
        )
        divisor = recall + beta**2 * precision
        scores.append((1 + beta**2) * precision * recall / divisor if divisor else 0.0)
    return sum(scores) / len(scores)


def cider_d(
    predictions: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    *,
    longest: int = 4,
    sigma: float = 6.0,
) -> float:
    """CIDEr-D of the corpus, in [0, 10]: likeness of tf-idf weighted n-grams, averaged over n,
    references and sentences.

    Document frequencies are counted over the given references, one document a sentence's set. A
    prediction's n-gram counts no more than in the reference, and a difference in length is damped
    by a Gaussian of `sigma` words: Vedantam et al., "CIDEr", 2015, section 7.
    """
    pairs = _pairs(predictions, references)
    documents: Counter = Counter()
    for _, sources in pairs:
        documents.update(
            {
                gram
                for source in sources
                for n in range(1, longest + 1)
                for gram in _ngrams(source, n)
            }
        )
    log_size = math.log(len(pairs))

    def weigh(words: tuple[str, ...], n: int) -> dict[tuple[str, ...], float]:
        return {
            gram: count * (log_size - math.log(max(documents[gram], 1)))
            for gram, count in _ngrams(words, n).items()
        }

    total = 0.0
    for prediction, sources in pairs:
        for source in sources:
            damping = math.exp(-((len(prediction) - len(source)) ** 2) / (2 * sigma**2))
            likeness = sum(
                _clipped_cosine(weigh(prediction, n), weigh(source, n))
                for n in range(1, longest + 1)
            )
            total += 10 * damping * likeness / longest / len(sources)
    return total / len(pairs)


def exact_match(predictions: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> float:
    """The share of sentences that equal one of their references, word by word."""
    matches = [prediction in sources for prediction, sources in _pairs(predictions, references)]
    return sum(matches) / len(matches)


def _pairs(
    predictions: Sequence[Sentence], references: Sequence[Sequence[Sentence]]
) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Each prediction with its references, as words."""
    if not predictions or len(predictions) != len(references):
        raise DataError(
            f"{len(predictions)} predictions for {len(references)} lists of references; give one "
            "of each, and at least one"
        )
    for i, sources in enumerate(references):
        if isinstance(sources, str) or not sources:
            raise DataError(
                f"references[{i}] is {sources!r}; expected a list of at least one sentence"
            )
    return [
        (tokenize(p), [tokenize(source) for source in sources])
        for p, sources in zip(predictions, references, strict=True)
    ]


def _ngrams(words: tuple[str, ...], n: int) -> Counter:
    def windows() -> Iterator[tuple[str, ...]]:
        return (words[i : i + n] for i in range(len(words) - n + 1))

    return Counter(windows())


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for a in first:
        diagonal = 0
        for j, b in enumerate(second, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]


def _clipped_cosine(prediction: dict, source: dict) -> float:
    """Cosine of two sparse vectors, the first one's entries cut to the second's in the product
    alone.
    """
    product = sum(
        min(weight, source[gram]) * source[gram]
        for gram, weight in prediction.items()
        if gram in source
    )
    norm = math.sqrt(sum(w * w for w in prediction.values()) * sum(w * w for w in source.values()))
    return product / norm if norm else 0.0
