import dataclasses
import hashlib
import sys
from functools import partial
from typing import Optional

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core import dotted, optimizers, schedules
from jaxcnn.core.experiment import optimizer_numbers
from jaxcnn.core.override import get_at, override, override_all
from jaxcnn.core.program import supervised
from jaxcnn.core.rendering import build, fields, render, render_text
from jaxcnn.data import augment
from jaxcnn.data.made.digits import Digits
from jaxcnn.errors import ConfigError
from jaxcnn.runs.check import abstract_state
from jaxcnn.tasks.classification import Classification
from tests.tiny import TinyNet, tiny


@dataclasses.dataclass(frozen=True)
class Nested:
    """Fields of every kind."""

    sizes: tuple
    mixed: tuple
    act: object
    pairs: tuple
    kept: object = dataclasses.field(default=None, repr=False)
    made: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass(frozen=True)
class Typed:
    """What annotations allow besides the type of the value."""

    ratio: float = 1
    maybe: Optional[int] = None  # noqa: UP045 (the old way to write it)
    name: str = "train"
    file: str | None = "a.npz"
    between: str | tuple[int, int] = "extent"
    sizes: tuple[int, ...] = (1,)


class Bare(nn.Module):
    """Without a field."""


@dataclasses.dataclass(frozen=True)
class Of:
    """No module."""

    name: str
    parent: str


def three_classes(label_smoothing):
    """A task."""
    return Classification(num_classes=3, label_smoothing=label_smoothing)


def loose(first, **more):
    """Takes any keyword."""
    return {"first": first, **more}


def numbers(a: float, b: int, c: float | int, d=1.0, e=None, f: float | None = None, **more):
    """Numbers of all annotations."""
    return {"a": a, "b": b, "c": c, "d": d, "e": e, "f": f, **more}


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
        ("patience", "soon", "expected int or None like None"),
        ("clip_norm", "optax.sgd", "expected float like 1.0, got str|expected float or None"),
        ("model.name", "'a'", "no field 'name'"),
        ("model", "5", "now it is TinyNet"),
        ("optimizer", "5", "now it is adamw"),
        ("augment.1.pixels", "3", "it has: 0"),
        ("seed.x", "1", "is a value"),
        ("accumulate", "3", "must divide"),
        ("task.label_smoothing", "2.0", "label_smoothing"),
    ],
)
def test_a_wrong_override_is_refused_with_the_reason(path, text, message):
    with pytest.raises(ConfigError, match=message):
        override(tiny(), path, text)


def test_a_text_of_an_experiment_may_be_taken_back():
    e = override_all(
        tiny(weights="a.npz", mesh="data=1"), ["weights=None", "mesh=None", "log_every=2"]
    )
    assert (e.weights, e.mesh) == (None, None)


def test_what_is_not_set_has_the_default_of_its_function():
    assert get_at(tiny(), "optimizer.b1") == 0.9
    assert get_at(tiny(), "optimizer.mask") is None
    assert get_at(tiny(optimizer=optax.sgd), "optimizer.learning_rate") is None  # has none
    with pytest.raises(ConfigError, match="no field 'lr' in adamw"):
        get_at(tiny(), "optimizer.lr")


@pytest.mark.parametrize(
    "path, text, expected",
    [
        ("ratio", "2.5", 2.5),
        ("ratio", "2", 2),
        ("maybe", "3", 3),
        ("maybe", "None", None),
        ("name", "2024", "2024"),
        ("name", "None", "None"),
        ("name", "'a b'", "a b"),
        ("file", "None", None),
        ("file", "'None'", "None"),
        ("file", "2024", "2024"),
        ("between", "(0, 1)", (0, 1)),
        ("between", "box", "box"),
        ("sizes", "[1, 2]", (1, 2)),
    ],
)
def test_annotations_widen_what_a_value_says(path, text, expected):
    found = getattr(override(Typed(), path, text), path)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    "tree, path, text, message",
    [
        (Typed(), "maybe", "soon", "expected int or None like None, got str"),
        (Typed(), "maybe", "optax.sgd", "expected int or None"),
        (Typed(), "sizes", "3", "expected tuple"),
        (tiny(clip_norm=None), "clip_norm", "optax.sgd", "expected float or None"),
        (tiny(layout=(("a", -1),)), "layout.0.1", "optax.sgd", "expected int"),
        (tiny(schedule=schedules.constant), "schedule", "0.5", "now it is constant"),
    ],
)
def test_what_annotations_do_not_allow(tree, path, text, message):
    with pytest.raises(ConfigError, match=message):
        override(tree, path, text)


def test_what_is_called_and_what_is_set():
    """Where a function stands a call sets its keywords; elsewhere, and within, it is made."""
    here = "tests.core.test_override"
    e = override(tiny(), "task", f"{here}.three_classes(label_smoothing=0.25)")
    assert e.task == Classification(num_classes=3, label_smoothing=0.25)
    e = override(tiny(), "optimizer.mask", f"{here}.loose(first=1, second=2)")
    assert e.optimizer.keywords["mask"] == {"first": 1, "second": 2}
    e = override(tiny(), "schedule", f"{here}.loose(first={here}.loose(first=1), other=2)")
    assert e.schedule.keywords == {"first": {"first": 1}, "other": 2}
    e = override(tiny(), "optimizer.mask", f"{here}.loose({here}.loose(3))")
    assert e.optimizer.keywords["mask"] == {"first": {"first": 3}}


def test_whole_numbers_become_floats_where_floats_are_taken():
    call = "tests.core.test_override.numbers(a=1, b=1, c=1, d=1, e=1, f=1, g=1, h=True)"
    found = override(tiny(), "schedule", call).schedule.keywords
    types = {"a": float, "b": int, "c": int, "d": float, "e": int, "f": float, "g": int, "h": bool}
    assert {name: type(value) for name, value in found.items()} == types
    assert set(found.values()) == {1}


def test_names_in_a_text():
    assert dotted.names_in("(1, optax.sgd(x=jax.numpy.pi), jax)") == [
        *("optax.sgd", "jax.numpy.pi", "jax.numpy"),
    ]
    for text in ("3", "adam", "(1, 'optax.sgd')", "not python"):
        assert dotted.names_in(text) == []
        assert dotted.parsed(text) is None


def test_a_module_of_a_package_that_nobody_imported(tmp_path, monkeypatch):
    (tmp_path / "late_package").mkdir()
    (tmp_path / "late_package" / "__init__.py").write_text("")
    (tmp_path / "late_package" / "inner.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert dotted.named("late_package.inner.VALUE") == 7
    with pytest.raises(ConfigError, match=r"late_package.inner has no 'VALEU'; did you mean"):
        dotted.named("late_package.inner.VALEU")


def test_a_member_of_a_tuple_keeps_its_type():
    e = tiny(layout=(("kernel", -1), ("bias", None)))
    assert get_at(override(e, "layout.0.1", "-2"), "layout") == (("kernel", -2), ("bias", None))
    assert get_at(override(e, "layout.1.0", "scale"), "layout.1") == ("scale", None)
    with pytest.raises(ConfigError, match="expected int"):
        override(e, "layout.0.1", "first")


def test_all_wrong_overrides_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        override_all(tiny(), ["modle.width=3", "batch_size=x", "epochs"])
    assert all(word in str(caught.value) for word in ("modle", "batch_size=x", "'epochs'"))
    assert len(str(caught.value).splitlines()) == 3


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


def test_what_is_rendered_is_built_again():
    e = tiny(
        optimizer=partial(optax.sgd, 0.1, momentum=0.9),
        rates=(("bias", 0.5),),
        objective=supervised,
    )
    rendered = render(dataclasses.replace(e, data=Digits()))
    assert render(build(rendered)) == rendered
    assert build(rendered).rates == (("bias", 0.5),)
    assert build({"a": [1, {"b": None}], "c": "text"}) == {"a": (1, {"b": None}), "c": "text"}
    for made, said in [
        (render(tiny().data.train), "cannot be made again from its rendering"),
        ({"array": "float32[2]", "sha256": "…"}, "float32.2.: cannot be made again"),
        ({"repr": "<thing>"}, "<thing>: cannot be made again"),
        ({"type": "jaxcnn.no_such:Thing"}, "'Thing' of module 'jaxcnn.no_such'"),
        ({"function": "__main__:mine"}, "of a notebook or a script cannot be found"),
        ({"type": "tests.tiny:TinyNet", "widht": 1}, "tests.tiny:TinyNet: .*widht"),
    ]:
        with pytest.raises(ConfigError, match=said):
            build(made)


@dataclasses.dataclass(frozen=True)
class Maker:
    """An optimizer's factory that is an object."""

    momentum: float = 0.9

    def __call__(self, learning_rate: float = 0.1):
        return optax.sgd(learning_rate, momentum=self.momentum)


@pytest.mark.parametrize("factory", [optax.nadam, optax.nadamw, Maker(momentum=0.5)])
def test_optimizers_that_are_no_functions(factory):
    """Such as optax.nadam, a partial itself: written down, built again, overridden."""
    given = partial(factory, learning_rate=0.25)
    assert optimizer_numbers(tiny(optimizer=given))["optimizer.learning_rate"] == 0.25
    numbers, gradient = {"x": np.ones(3, np.float32)}, {"x": np.full(3, 0.5, np.float32)}
    with jax.numpy_dtype_promotion("standard"):
        steps = [
            made.update(gradient, made.init(numbers), numbers)[0]["x"]
            for made in (given(), build(render(given))(), factory(0.25), factory(0.5))
        ]
    np.testing.assert_array_equal(steps[0], steps[1])
    np.testing.assert_array_equal(steps[0], steps[2])
    assert not np.allclose(steps[0], steps[3])
    changed = override(tiny(optimizer=given), "optimizer.learning_rate", "0.5").optimizer
    assert changed.keywords == given.keywords | {"learning_rate": 0.5}
    for path, said in (("optimizer.bb", "no field 'bb' in (adam|Maker)"), ("optimizer", "now it")):
        with pytest.raises(ConfigError, match=said):
            override(tiny(optimizer=given), path, "3")


class Shaped:
    """No array, though it has a shape."""

    shape = (2,)

    def __repr__(self):
        return "Shaped()"


def test_a_field_called_name_is_hidden_in_modules_alone():
    assert render(Typed(name="other"))["name"] == "other"
    assert build(render(Typed(name="other"))) == Typed(name="other")
    for module in (TinyNet(name="tiny"), Bare(name="bare")):
        assert not {"name", "parent"} & set(render(module))
    assert render(Of("a", "b")) == {"type": f"{__name__}:Of", "name": "a", "parent": "b"}
    call = "tests.core.test_override.Typed(name='other')"
    assert override(tiny(), "optimizer.mask", call).optimizer.keywords["mask"].name == "other"
    with pytest.raises(ConfigError, match="no keyword 'name'"):
        override(tiny(), "model", "tests.tiny.TinyNet(name='a')")


def test_arrays_are_told_by_their_bytes():
    array = np.float32([[1, 2]])
    said = {"array": "float32[1, 2]", "sha256": hashlib.sha256(array).hexdigest()[:16]}
    assert render(array) == render(jax.numpy.asarray(array)) == said
    assert render(array.T.copy().T) == said  # however it lies in memory
    assert render(array + 1)["sha256"] != said["sha256"]
    assert render(Shaped()) == {"repr": "Shaped()"}
    assert render({1: b"x"}) == {"1": {"repr": "b'x'"}}


def test_a_rendering_has_no_line_for_each_number_and_one_for_each_thing():
    tree = {
        "type": "a.b:C",
        "sizes": [1, 2],
        "mixed": [3, {"partial": "d.e:f", "x": 4}],
        "act": {"function": "g:h.relu"},
        "pairs": [["k", 0.5]],
        "none": None,
    }
    assert list(fields(tree)) == [
        ("sizes", [1, 2]),
        ("mixed.0", 3),
        ("mixed.1", "f"),
        ("mixed.1.x", 4),
        ("act", "h.relu"),
        ("pairs.0", ["k", 0.5]),
        ("none", None),
    ]
    mixed = ("type", partial(abs, 4))
    text = render_text(Nested(sizes=(1, 2), mixed=mixed, act=abs, pairs=(("k", 1),), kept=3))
    assert text.splitlines() == [
        *("sizes: [1, 2]", "mixed:", "  0: type", "  1: abs", "    *: [4]", "act: abs"),
        "pairs: [['k', 1]]",
    ]
    assert render_text({"a": {"b": 1}}, indent=1).splitlines() == ["  a:", "    b: 1"]


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
        ("optimizer=optax.sgd(1.0)", "by its keyword, learning_rate=…, momentum=…, so that"),
        ("optimizer=adamw(learning_rate=1.0)", "give it with its module, such as optax.adamw"),
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
