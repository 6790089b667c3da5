import dataclasses
import sys
from functools import partial

import jax
import optax
import pytest
from flax import linen as nn

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import optimizer_numbers
from jaxcnn.core.override import get_at, override, override_all
from jaxcnn.core.program import supervised
from jaxcnn.core.rendering import render, render_text
from jaxcnn.data import augment
from jaxcnn.errors import ConfigError
from jaxcnn.runs.check import abstract_state
from jaxcnn.tasks.classification import Classification
from tests.tiny import TinyNet, tiny


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


@pytest.mark.parametrize(
    "path, text, expected",
    [
        ("optimizer", "optax.sgd(learning_rate=1, momentum=0.9)",
         partial(optax.sgd, learning_rate=1.0, momentum=0.9)),
        ("optimizer", "functools.partial(optax.sgd, learning_rate=0.1)",
         partial(optax.sgd, learning_rate=0.1)),
        ("optimizer", "optax.contrib.dog", optax.contrib.dog),
        ("optimizer.mask", "jaxcnn.core.optimizers.kernels", optimizers.kernels),
        ("schedule", "jaxcnn.core.schedules.cosine(warmup=0.1)",
         partial(schedules.cosine, warmup=0.1)),
        ("augment", "(jaxcnn.data.augment.flip_left_right, jaxcnn.data.augment.shift(pixels=2))",
         (augment.flip_left_right, partial(augment.shift, pixels=2))),
        ("augment.0", "jaxcnn.data.augment.cutout(size=3)", partial(augment.cutout, size=3)),
        ("model", "tests.tiny.TinyNet(width=8)", TinyNet(width=8)),
        ("model", "tests.tiny.TinyNet", TinyNet()),
        ("model", "flax.linen.Sequential(layers=[flax.linen.Conv(4, (3, 3)), jax.nn.relu])",
         nn.Sequential((nn.Conv(4, (3, 3)), jax.nn.relu))),
        ("task", "jaxcnn.tasks.classification.Classification(num_classes=3, label_smoothing=0.1)",
         Classification(num_classes=3, label_smoothing=0.1)),
        ("objective", "jaxcnn.core.program.supervised", supervised),
        ("objective", "None", None),
    ],
)  # fmt: skip
def test_an_import_path_stands_for_what_it_names_as_if_written_in_the_file(path, text, expected):
    after = override(tiny(), path, text)
    assert render(get_at(after, path)) == render(expected)
    assert type(get_at(after, path)) is type(expected)


def test_numbers_of_a_swapped_optimizer_are_changed_and_live_in_the_state():
    e = override_all(
        tiny(), ["optimizer=optax.sgd(learning_rate=1)", "optimizer.learning_rate=0.5"]
    )
    assert optimizer_numbers(e) == {"optimizer.learning_rate": 0.5}
    e = override_all(tiny(), ["optimizer=optax.sgd", "optimizer.learning_rate=0.5"])
    assert e.optimizer.func is optax.sgd
    assert optimizer_numbers(e)["optimizer.learning_rate"] == 0.5


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("optimizer=optx.sgd(learning_rate=1.0)", "no module 'optx'; did you mean 'optax'"),
        ("optimizer=optax.sdg(learning_rate=1.0)", "optax has no 'sdg'; did you mean 'sgd'"),
        ("optimizer=optax.contrib.nothing.at.all", "optax.contrib has no 'nothing'"),
        ("optimizer=optax.adamw(lr=1.0)", "no keyword 'lr'; it has: learning_rate, b1"),
        ("optimizer=optax.sgd(1.0)", "by its keyword, learning_rate=…"),
        ("optimizer=optax.sgd(learning_rate=1e999)", "must be finite"),
        ("optimizer=optax.sgd(learning_rate=abs)", "abs: give a name with its module"),
        ("optimizer=optax.sgd(learning_rate=0.1 * 2)", "is neither a literal"),
        ("optimizer=optax.sgd(**optax.x)", "without \\*\\*"),
        ("optimizer=jax.numpy.pi(x=1)", "cannot be called"),
        ("optimizer=adamw", "must be an import path.*now it is adamw"),
        ("optimizer=0.1", "must be an import path"),
        ("model=tests.tiny.TinyNet(widht=8)", "no keyword 'widht'.*did you mean 'width'"),
        ("model=tests.tiny.tiny", "must be a flax.linen module"),
        ("model=jaxcnn.tasks.classification.Classification", "missing.*num_classes"),
        ("task=tests.tiny.TinyNet(width=8)", "see the task protocol"),
        ("task=jaxcnn.tasks.classification.Classification(num_classes=0)", "num_classes"),
        ("batch_size=optax.sgd", "expected int"),
    ],
)
def test_a_wrong_import_path_is_refused_with_the_reason(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override_all(tiny(), [assignment])


def test_a_swap_after_a_change_of_what_it_replaces_is_refused():
    with pytest.raises(ConfigError, match=r"undoes optimizer.learning_rate"):
        override_all(
            tiny(), ["optimizer.learning_rate=0.1", "optimizer=optax.sgd(learning_rate=1.0)"]
        )


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("optimizer=optax.sgd", "lacks learning_rate.*optimizer.learning_rate="),
        ("optimizer=optax.apply_updates(params=1, updates=2)", "optimizer: gives"),
        ("schedule=optax.adam(learning_rate=0.1)", "schedule: "),
        ("schedule=jaxcnn.core.schedules.step", "schedule: missing.*'boundaries'"),
    ],
)
def test_what_is_no_optimizer_and_no_schedule_is_refused_before_training(assignment, message):
    with pytest.raises(ConfigError, match=message):
        abstract_state(override_all(tiny(), [assignment]))


def test_an_import_path_runs_nothing_but_what_it_calls(tmp_path):
    canary = tmp_path / "canary"
    for text in (
        f"__import__('pathlib').Path({str(canary)!r}).touch()",
        f"optax.sgd(learning_rate=[open({str(canary)!r}, 'w') for _ in (1,)])",
        f"(lambda: open({str(canary)!r}, 'w'))()",
        f"optax.sgd if open({str(canary)!r}, 'w') else optax.adam",
    ):
        with pytest.raises(ConfigError):
            override(tiny(), "optimizer", text)
    assert not canary.exists()


def test_a_module_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_swap.py").write_text("import not_there_at_all\n")
    (tmp_path / "worse_swap.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)  # found in the folder of the process
    monkeypatch.setattr("sys.path", list(sys.path))
    for name, message in (("broken", "not_there_at_all"), ("worse", "ZeroDivisionError")):
        with pytest.raises(ConfigError, match=f"{name}_swap cannot be imported.*{message}"):
            override(tiny(), "model", f"{name}_swap.Net()")
