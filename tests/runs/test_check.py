"""What is refused, and what is known, before any example is read."""

import dataclasses
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.runs import check
from jaxcnn.tasks.classification import Classification
from tests.tiny import arrays, tiny


@dataclasses.dataclass(frozen=True)
class Told:
    """Data of which this is known alone."""

    entry: str = "label"
    names: tuple[str, ...] | None = ()
    sizes: tuple[int | None, ...] = (0, 0, 0)

    @property
    def label_names(self):
        if self.names is None:
            raise DataError("not there yet")
        return self.names

    def spec(self):
        return {"image": None, self.entry: None}

    def size(self, split):
        found = dict(zip(("train", "eval", "test"), self.sizes, strict=True))[split]
        if found is None:
            raise DataError("not there yet")
        return found


LETTERS = tuple("abcdefghijkl")


@pytest.mark.parametrize(
    "entry, names, right, wrong",
    [
        ("label", LETTERS[:3], (3,), (2, 4)),
        ("box_labels", LETTERS[:3], (3,), (2, 4)),
        ("segmentation", LETTERS[:3], (3, 4), (2, 5)),  # the background may have no name
        ("text", LETTERS[:3], (2, 3, 4), ()),
        ("label", (), (2, 3), ()),
        ("label", None, (2, 3), ()),
    ],
)
def test_a_tasks_classes_are_those_that_the_data_name(entry, names, right, wrong):
    def said_of(count):
        task = SimpleNamespace(num_classes=count) if count else SimpleNamespace()
        check.check_classes(SimpleNamespace(task=task, data=Told(entry, names)))

    for count in (*right, None):
        said_of(count)
    for count in wrong:
        with pytest.raises(ConfigError, match=f"task.num_classes={count}, and the data have 3"):
            said_of(count)


@pytest.mark.parametrize(
    "count, shown",
    [(2, "a, b"), (10, "a, b, c, d, e, f, g, h, i, j"), (11, "a, b, c, d, e, f, g, h, i, j, …")],
)
def test_ten_names_of_classes_are_shown(count, shown):
    e = SimpleNamespace(task=SimpleNamespace(num_classes=1), data=Told(names=LETTERS[:count]))
    with pytest.raises(ConfigError) as caught:
        check.check_classes(e)
    assert f" {count} classes ({shown}): set task.num_classes={count}" in str(caught.value)


def test_a_tasks_image_size_is_that_of_the_images_that_the_model_sees():
    e = SimpleNamespace(task=SimpleNamespace(image_size=(8, 9)))
    check._check_image_size(e, {"image": np.zeros((2, 8, 9, 3))})
    check._check_image_size(e, {"noise": np.zeros((2, 3))})
    check._check_image_size(SimpleNamespace(task=3), {"image": np.zeros((2, 7, 9, 3))})
    for wrong in ((9, 8), (8, 8), (7, 9)):
        with pytest.raises(ConfigError) as caught:
            check._check_image_size(e, {"image": np.zeros((2, *wrong, 3))})
        assert f"images of the data are {wrong[0]},{wrong[1]} (height, width)" in str(caught.value)
        assert f": set task.image_size={wrong[0]},{wrong[1]}, or" in str(caught.value)


class Flat(nn.Module):
    """Scores of so many classes."""

    classes: int = 3

    @nn.compact
    def __call__(self, image, *, train: bool):
        return nn.Dense(self.classes)(image.reshape(image.shape[0], -1))


def test_what_does_not_fit_together_is_refused_with_the_shapes():
    assert check.abstract_state(tiny(model=Flat())).step.shape == ()
    with pytest.raises(ConfigError, match=r"needs \['noise'\] but the data have only .*'image'"):
        check.abstract_state(tiny(task=Classification(3, inputs=("image", "noise"))))
    with pytest.raises(ConfigError, match=r"the model gives 4 classes and task\.num_classes=3"):
        check.abstract_state(tiny(model=Flat(4)))
    flat = {**arrays(9), "image": np.zeros((9, 1, 8, 1), np.uint8)}
    with pytest.raises(ConfigError, match=r"refuses these data \(image \[1, 8, 1\] uint8, label"):
        check.abstract_state(tiny(data=Arrays(flat, flat)))


@pytest.mark.parametrize(
    "batch_size, devices, advice",
    [
        (8, 3, "choose 6 or 9, or fewer devices"),
        (8, 16, "choose 16, or fewer devices"),
        (9, 2, "choose 8 or 10, or fewer devices"),
    ],
)
def test_a_batch_is_split_evenly_over_devices(monkeypatch, batch_size, devices, advice):
    e = tiny(batch_size=batch_size)
    check.check_divides(e)
    check.check_divides(e, devices=1)
    with pytest.raises(ConfigError, match=advice):
        check.check_divides(e, devices=devices)
    monkeypatch.setattr(check.hosts, "devices", lambda: [None] * devices)
    with pytest.raises(ConfigError, match=advice.replace("fewer", "let JAX see fewer")):
        check.check_divides(e)


def test_a_mesh_is_of_the_devices_that_there_are_or_shall_be():
    whole = check.share_of_state(tiny(), (1,))[1]
    assert check.share_of_state(tiny(mesh="data=2"), (2,))[2] == whole  # each has all
    assert whole / 2 <= check.share_of_state(tiny(mesh="fsdp=2"), (2,))[2] < whole
    check.check_divides(tiny(mesh="fsdp=2"), devices=2)
    check.check_divides(tiny(mesh="fsdp=1"))
    with pytest.raises(ConfigError, match="mesh='fsdp=2'"):
        check.check_divides(tiny(mesh="fsdp=2"))  # of which there is one
    with pytest.raises(ConfigError, match="mesh='fsdp=4'"):
        check.check_divides(tiny(mesh="fsdp=4"), devices=2)
    check.check_divides(tiny(model=Flat(4)))  # of a model nothing is said without a mesh


def test_a_group_that_holds_a_state_together_lies_on_one_host(monkeypatch):
    monkeypatch.setattr(check.hosts, "devices", lambda: [None] * 2)
    monkeypatch.setattr(check.hosts, "count", lambda: 2)
    with pytest.raises(ConfigError, match="fsdp=2 must divide the 1 devices of each host"):
        check.check_divides(tiny(mesh="fsdp=2"))


def test_sizes_that_are_not_known_yet_are_none():
    known, unknown = Told(sizes=(5, 0, 3)), Told(sizes=(0, None, None))
    assert [check.size_of(known, split) for split in ("train", "eval", "test")] == [5, 0, 3]
    assert [check.size_of(unknown, split) for split in ("train", "eval", "test")] == [None] * 3
    assert check.size_of(Told(sizes=(1, 0, 0)), "train") == 1


def test_what_is_known_of_a_run_before_it_begins():
    e = tiny(steps=None, epochs=4, augment=())
    found = check.pre_flight(e)
    state = jax.eval_shape(make_program(e, steps=1).init, jax.random.key(0))

    def size(tree):
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))

    assert found == {
        "inputs": {"image": [8, 8, 1]},
        **{"state_bytes": size(state), "state_bytes_per_device": size(state)},
        "params": sum(x.size for x in jax.tree.leaves(state.params)),
        **{"param_bytes": size(state.params), "optimizer_bytes": size(state.opt_state)},
        "model_state_bytes": size(state.model_state),
        "batch_bytes": 8 * (8 * 8 * 1 + 4),
        **{"train_examples": 50, "eval_examples": 21, "test_examples": 0},
        # an evaluation after 0.8 epochs of 50 / 8 steps
        **{"steps": 4 * 50 / 8, "steps_per_epoch": 6.25, "steps_per_evaluation": 5},
        **{"backend": "cpu", "devices": 1},
    }
    assert check._sizes_of({"a": jax.ShapeDtypeStruct((3, 4), np.float32)}) == {"state_bytes": 48}


def test_a_run_whose_batches_no_devices_can_share_is_not_begun(monkeypatch):
    monkeypatch.setattr(check.hosts, "devices", lambda: [None] * 3)
    with pytest.raises(ConfigError, match="cannot be split evenly over 3 devices"):
        check.pre_flight(tiny())


@dataclasses.dataclass(frozen=True)
class NotThereYet(Arrays):
    """Data that a download brings."""

    def size(self, split):
        return 0 if split == "train" else super().size(split)


@pytest.mark.parametrize("steps, batch_size", [(None, 8), (7, 7), (7, 3)])
def test_without_examples_yet_steps_are_known_where_they_are_given(steps, batch_size):
    e = tiny(steps=steps, epochs=2, batch_size=batch_size, eval_every=2,
             data=NotThereYet(arrays(16), arrays(9)))  # fmt: skip
    found = check.pre_flight(e)
    assert (found["steps"], found["train_examples"]) == (steps, None)
    assert (found["steps_per_epoch"], found["steps_per_evaluation"]) == (None, None)
    e = dataclasses.replace(e, data=Arrays(arrays(16), arrays(9)))
    assert check.pre_flight(e)["steps_per_epoch"] == round(16 / batch_size, 2)
