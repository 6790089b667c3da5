"""Near twins are found, and lie on one side of a split."""

import io
import itertools
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.data.made.mails import SpamAssassin
from jaxcnn.data.twins import group_alike, near_twins
from jaxcnn.errors import ConfigError

LETTER = " ".join(f"word{i}" for i in range(40))


def changed(at, text=LETTER):
    """The text with another word at each of these places."""
    return " ".join(f"other{i}" if i in at else word for i, word in enumerate(text.split()))


@pytest.mark.parametrize(
    "texts, groups",
    [
        ([LETTER, changed([0]), "quite another letter", LETTER.upper()], [0, 0, 1, 0]),
        # a change in the middle is in 3 of 38 runs of three words: 35 / 41 are in both
        ([LETTER, changed([20])], [0, 0]),
        ([LETTER, changed([10, 20])], [0, 1]),  # 32 / 44
        ([changed([10]), LETTER, changed([30])], [0, 0, 0]),  # by a chain
        (["", "a", "a b", "A  b", "", "b a"], [0, 1, 2, 2, 0, 3]),
        ([], []),
    ],
)
def test_groups(texts, groups):
    assert near_twins(texts).tolist() == groups


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=9),
    st.sampled_from([0.2, 0.5, 0.75, 0.8, 1.0]),
)
def test_groups_are_those_of_all_pairs(sets, share):
    """As found by comparing every pair and following chains."""
    label = list(range(len(sets)))
    for _ in sets:
        for i, j in itertools.combinations(range(len(sets)), 2):
            if len(sets[i] & sets[j]) >= share * len(sets[i] | sets[j]):
                label = [label[i] if k == label[j] else k for k in label]
    found = group_alike(sets, share=share)
    for i, j in itertools.combinations(range(len(sets)), 2):
        assert (found[i] == found[j]) == (label[i] == label[j])


@pytest.mark.parametrize("options", [{"share": 0}, {"share": 1.5}, {"words": 0}])
def test_refused(options):
    with pytest.raises(ConfigError, match="near_twins"):
        near_twins(["a"], **options)


def pack(path, mails):
    """A package as `npm pack` makes it, of (group, body) each."""
    with tarfile.open(path, "w:gz") as archive:
        for number, (group, body) in enumerate(mails):
            data = json.dumps({"group": group, "text": f"From: a\n\n{body}"}).encode()
            info = tarfile.TarInfo(f"package/data/{group}/{number:05}.json")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize("seed", range(3))
def test_no_twins_on_both_sides_of_the_mails_split(tmp_path, seed):
    """20 letters of which most have five versions of one other word each, and single ones."""
    mails = []
    for number in range(30):
        body = " ".join(f"m{number}w{i}" for i in range(40))
        group, versions = "spam-1" if number % 3 else "easy-ham-1", 5 if number < 20 else 1
        mails += [(group, changed([k], body)) for k in range(versions)]
    data = SpamAssassin(path=pack(tmp_path / "mails.tgz", mails), split_seed=seed)
    sides = {split: data._read[1][split] for split in ("train", "eval")}
    letters = {split: {text.split()[-1] for text, _ in texts} for split, texts in sides.items()}
    assert not letters["train"] & letters["eval"]
    assert len(letters["train"] | letters["eval"]) == 30
    sizes = {split: len(texts) for split, texts in sides.items()}
    assert sum(sizes.values()) == 110
    assert abs(sizes["eval"] - 22) <= 5
    shares = [np.mean([label for _, label in texts]) for texts in sides.values()]
    assert abs(shares[0] - shares[1]) < 0.15
