"""Edit distance against its recursive definition; error rates against counting by hand."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.errors import DataError
from jaxcnn.metrics import edit_distance


@given(st.text("ab c", max_size=8), st.text("abd ", max_size=8))
@settings(max_examples=150, deadline=None)
def test_edit_distance_equals_its_definition(first, second):
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (first[i - 1] != second[j - 1]),
        )

    assert edit_distance.edit_distance(first, second) == distance(len(first), len(second))
    assert edit_distance.edit_distance(first.split(), second.split()) <= max(
        len(first.split()), len(second.split())
    )


def test_error_rates_are_summed_over_lines():
    predictions, references = ["kitten", "a cat sat", ""], ["sitting", "the cat sat", "x"]
    assert edit_distance.character_error_rate(predictions, references) == pytest.approx(
        (3 + 3 + 1) / (7 + 11 + 1)
    )
    assert edit_distance.word_error_rate(predictions, references) == pytest.approx(
        (1 + 1 + 1) / (1 + 3 + 1)
    )


@pytest.mark.parametrize(
    "predictions, references, says",
    [(["a"], [], "1 predictions for 0"), (["a"], [""], "hold no characters")],
)
def test_bad_input_is_refused(predictions, references, says):
    with pytest.raises(DataError, match=says):
        edit_distance.character_error_rate(predictions, references)
