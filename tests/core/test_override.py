import dataclasses
from functools import partial

import optax
import pytest

from jaxcnn.core.override import get_at, override, override_all
from jaxcnn.core.rendering import render, render_text
from jaxcnn.errors import ConfigError
from tests.tiny import tiny


@pytest.mark.parametrize(
    "path, text, expected",
    [
        ("model.width", "8", 8),
        ("model.dropout", "0", 0.0),  # an int becomes a float
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("optimizer.b1", "0.8", 0.8),  # a keyword that the partial did not set
        ("optimizer.nesterov", "True", True),
        ("augment.0.pixels", "3", 3),
        ("clip_norm", "None", None),
        ("clip_norm", "2", 2.0),
        ("patience", "4", 4),  # None has no type: the annotation decides
        ("compute_dtype", "bfloat16", "bfloat16"),
        ("task.label_smoothing", "0.1", 0.1),
    ],
)
def test_an_override_replaces_exactly_one_leaf(path, text, expected):
    before = tiny()
    after = override(before, path, text)
    assert get_at(after, path) == expected
    assert type(get_at(after, path)) is type(expected)
    old, new = render(before), render(after)
    head = path.split(".")[0]
    assert {k: v for k, v in old.items() if k != head} == {
        k: v for k, v in new.items() if k != head
    }
    assert render(before) == render(dataclasses.replace(tiny(), data=before.data)), (
        "the original is untouched"
    )


@pytest.mark.parametrize(
    "path, text, message",
    [
        ("model.widht", "8", "did you mean 'width'"),
        ("optimizer.lr", "1", "learning_rate"),
        ("batch_size", "abc", "expected int"),
        ("batch_size", "1.5", "expected int"),
        ("batch_size", "True", "expected int"),
        ("batch_size", "0", "at least 1"),
        ("optimizer.learning_rate", "1e999", "finite"),
        ("optimizer.learning_rate", "True", "expected float"),
        ("clip_norm", "True", "expected float"),
        ("patience", "soon", "expected int or None"),
        ("augment.1.pixels", "3", "it has: 0"),
        ("seed.x", "1", "is a value"),
        ("accumulate", "3", "must divide"),
        ("task.label_smoothing", "2.0", "label_smoothing"),
    ],
)
def test_a_wrong_override_is_refused_with_the_reason(path, text, message):
    with pytest.raises(ConfigError, match=message):
        override(tiny(), path, text)


def test_all_wrong_overrides_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        override_all(tiny(), ["modle.width=3", "batch_size=x", "epochs"])
    assert all(word in str(caught.value) for word in ("modle", "batch_size=x", "'epochs'"))


def test_values_are_read_never_evaluated(tmp_path):
    canary = tmp_path / "canary"
    for text in (f"__import__('pathlib').Path({str(canary)!r}).touch()", "[" * 10_000, "lambda: 0"):
        with pytest.raises(ConfigError):
            override(tiny(), "batch_size", text)
    assert not canary.exists()


def test_rendering_names_types_functions_and_numbers():
    rendered = render(tiny(optimizer=partial(optax.sgd, 0.1, momentum=0.9)))
    assert rendered["optimizer"]["learning_rate"] == 0.1
    assert rendered["model"]["type"].endswith("TinyNet")
    assert rendered["schedule"]["partial"] == "jaxcnn.core.schedules:cosine"
    assert "momentum: 0.9" in render_text(tiny(optimizer=partial(optax.sgd, 0.1, momentum=0.9)))


@pytest.mark.parametrize("rate", [-1.0, -1e-9, float("nan"), float("inf")])
def test_a_rate_that_climbs_the_loss_is_refused(rate):
    from functools import partial

    from tests.tiny import tiny

    with pytest.raises(ConfigError, match=r"learning_rate=.*must be a number of at least 0"):
        tiny(optimizer=partial(optax.sgd, learning_rate=rate))
    tiny(optimizer=partial(optax.sgd, learning_rate=0.0))
