"""Near twins: texts that are the same but for a few words. They must lie on one side of a split, or
what is scored was learned by heart. On the host.

Two texts resemble each other by the share of their runs of words (shingles) that both have: A.
Broder, "On the resemblance and containment of documents", 1997. Pairs are found exactly, by the
rarest shingles alone: R. Bayardo, Y. Ma and R. Srikant, "Scaling up all pairs similarity search",
2007, section 3.
"""

import collections
import math
from collections.abc import Iterable, Sequence

import numpy as np

from jaxcnn.data.vocabulary import split_words
from jaxcnn.errors import ConfigError


def near_twins(texts: Iterable[str], *, share: float = 0.8, words: int = 3) -> np.ndarray:
    """The group of each text, [N] int32 in the order of their first texts: two texts are in one
    group where at least `share` of the runs of `words` words that either has are in both (Jaccard),
    or where a chain of such pairs joins them. A text of fewer words is one run.

    Errors: ConfigError for a share outside (0, 1] and for words below 1.
    """
    if not 0 < share <= 1 or words < 1:
        raise ConfigError(
            f"near_twins: share is {share} and words is {words}; share must lie in (0, 1] and "
            "words be at least 1"
        )
    numbers: dict[str, int] = {}
    runs: dict[tuple[int, ...], int] = {}
    sets = []
    for text in texts:
        tokens = [numbers.setdefault(word, len(numbers)) for word in split_words(text)]
        each = zip(*(tokens[i:] for i in range(words)), strict=False)
        own = {runs.setdefault(run, len(runs)) for run in each}
        sets.append(own or {runs.setdefault(tuple(tokens), len(runs))})
    return group_alike(sets, share=share)


def group_alike(sets: Sequence[set[int]], *, share: float) -> np.ndarray:
    """The group of each set, [N] int32: joined are sets of which |both| / |either| >= share."""
    frequency = collections.Counter(item for own in sets for item in own)
    parent = list(range(len(sets)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    holders: dict[int, list[int]] = collections.defaultdict(list)
    for i, own in enumerate(sets):
        # of alike sets, each has one of so many of its rarest items in common with the other's
        needed = len(own) - math.ceil(share * len(own) - 1e-9) + 1
        ordered = sorted(own, key=lambda item: (frequency[item], item))[:needed]
        rarest = [item for item in ordered if frequency[item] > 1]
        for j in {j for item in rarest for j in holders[item]}:
            if root(i) == root(j):
                continue
            both = len(own & sets[j])
            if both >= share * (len(own) + len(sets[j]) - both) - 1e-9:
                low, high = sorted((root(i), root(j)))
                parent[high] = low
        for item in rarest:
            holders[item].append(i)
    _, numbers = np.unique([root(i) for i in range(len(sets))], return_inverse=True)
    return numbers.astype(np.int32)
