"""What transformations of a program mean, by hand: the program is one of plain functions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from jaxcnn.core import meshes, transforms
from jaxcnn.core.memory import Fitting, call_bytes
from jaxcnn.core.meshes import Layout
from jaxcnn.core.protocols import Program
from jaxcnn.errors import ConfigError
from jaxcnn.tasks.classification import Classification
from tests.tiny import tiny


def init(start, numbers):
    return {"w": start * numbers["scale"]}


def train_step(state, batch):
    return {"w": state["w"] + batch["x"].sum()}, {"before": state["w"]}


def output_step(state, batch):
    return state["w"] * batch["x"]


PLAIN = Program(init, train_step, output_step)


def stacked(states):
    return jax.tree.map(lambda *x: np.stack(x), *states)


@pytest.mark.parametrize(
    "way", [transforms.replicate, partial(transforms.unroll, count=3)], ids=["vmap", "unrolled"]
)
def test_replicas_are_runs_of_their_own_that_share_what_they_are_evaluated_with(way):
    program = way(PLAIN)
    state = program.init(jnp.asarray([1.0, 2, 3]), {"scale": jnp.asarray([1.0, 10, 100])})
    together = state if isinstance(state, dict) else stacked(state)
    np.testing.assert_array_equal(together["w"], [1, 20, 300])
    state, numbers = program.train_step(state, {"x": jnp.asarray([[1.0, 1], [2, 2], [3, 3]])})
    together = state if isinstance(state, dict) else stacked(state)
    np.testing.assert_array_equal(together["w"], [3, 24, 306])
    np.testing.assert_array_equal(numbers["before"], [1, 20, 300])
    found = program.output_step(state, {"x": jnp.asarray([1.0, 2, 3, 4])})
    np.testing.assert_array_equal(found, np.outer([3, 24, 306], [1, 2, 3, 4]))


def test_many_steps_a_dispatch_are_steps_one_after_another():
    program = transforms.scan(PLAIN)
    batches = {"x": jnp.asarray([[1.0, 1], [2, 2], [3, 3]])}
    state, numbers = program.train_step({"w": jnp.float32(1)}, batches)
    assert float(state["w"]) == 13
    np.testing.assert_array_equal(numbers["before"], [1, 3, 7])
    assert (program.init, program.output_step) == (init, output_step)
    text = jax.jit(program.train_step).lower(state, batches).as_text()
    assert ("while" not in text) == (jax.default_backend() == "cpu")


class Numbers(NamedTuple):
    hyperparams: dict


def scores(state, batch):
    """Outputs of a classifier of three classes, and the batch as it is prepared."""
    w = 1.0 if isinstance(state, Numbers) else state
    return batch["image"] * w, {**batch, "mask": jnp.ones(2)}


SCORES = Program(init, train_step, scores)
BATCH = {"image": jnp.asarray([[0.0, 3, 0], [1, 0, 0]]), "label": jnp.asarray([1, 2], jnp.int32)}


def experiment(task):
    e = tiny()
    object.__setattr__(e, "task", task)
    return e


class Sums(Classification):
    """Whose parts are told apart."""

    def statistics(self, outputs, batch):
        told = {"sum": outputs.sum(), "rows": batch["mask"].sum()}
        return {**told, "smoothing": self.label_smoothing}

    def records(self, outputs, batch):
        return {"each": outputs[:, 0] + batch["label"].astype(jnp.float32)}

    def predict(self, outputs):
        return {"twice": 2 * outputs, "smoothing": self.label_smoothing}

    def ensemble(self, outputs):
        return sum(outputs)

    def from_view(self, outputs, view):
        return outputs * (10 if view.mirrored else 1)


def test_a_program_is_read_through_its_task():
    e = experiment(Sums(3, label_smoothing=0.5))
    sums, records = transforms.scored(SCORES, e).output_step(2.0, BATCH)
    assert {name: float(x) for name, x in sums.items()} == {"sum": 8, "rows": 2, "smoothing": 0.5}
    np.testing.assert_array_equal(records["each"], [1, 4])
    predicted = transforms.predicting(SCORES, e).output_step(2.0, BATCH)
    np.testing.assert_array_equal(predicted["twice"], 4 * BATCH["image"])
    for read in (transforms.scored, transforms.predicting, transforms.ensemble):
        assert read(SCORES, e)[:2] == (init, train_step)


def test_an_ensemble_joins_the_outputs_for_one_batch():
    outputs, batch = transforms.ensemble(SCORES, experiment(Sums(3))).output_step((2.0, 5.0), BATCH)
    np.testing.assert_array_equal(outputs, 7 * BATCH["image"])
    assert set(batch) == {"image", "label", "mask"}
    outputs, _ = transforms.ensemble(SCORES, experiment(Sums(3))).output_step((2.0,), BATCH)
    np.testing.assert_array_equal(outputs, 2 * BATCH["image"])


def test_views_are_joined_as_the_task_says_and_the_first_is_scored():
    image = jnp.asarray([1.0, 2, 3]).reshape(1, 1, 3, 1)
    shown = transforms.viewed(SCORES, experiment(Sums(3)), "flip")
    outputs, batch = shown.output_step(2.0, {"image": image})
    np.testing.assert_array_equal(np.ravel(outputs), [62, 44, 26])  # 2 (1 + 10 * 3), …
    np.testing.assert_array_equal(batch["image"], image)


def test_numbers_of_the_state_are_those_of_the_task():
    e = experiment(Sums(3, label_smoothing=0.1))
    swept = Numbers({"task.label_smoothing": 0.2})
    assert transforms.task_of(e, swept).label_smoothing == 0.2
    assert transforms.task_of(e, (swept,)).label_smoothing == 0.1
    for state, smoothing in ((swept, 0.2), (1.0, 0.1)):
        sums, _ = transforms.scored(SCORES, e).output_step(state, BATCH)
        found = transforms.predicting(SCORES, e).output_step(state, BATCH)
        assert sums["smoothing"] == found["smoothing"] == smoothing


def test_a_compiled_program_takes_the_memory_of_the_state_that_it_is_given():
    program = transforms.compile(PLAIN)
    state, batch = program.init(jnp.ones(8), {"scale": jnp.float32(2)}), {"x": jnp.ones(8)}
    np.testing.assert_array_equal(program.output_step(state, batch), np.full(8, 2))
    assert not state["w"].is_deleted()
    new, numbers = program.train_step(state, batch)
    np.testing.assert_array_equal(new["w"], np.full(8, 10))
    np.testing.assert_array_equal(numbers["before"], np.full(8, 2))
    assert state["w"].is_deleted()
    assert not batch["x"].is_deleted()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs")
def test_what_is_called_once_is_optimized_least_unless_nothing_is():
    before = jax.config.read("jax_disable_most_optimizations")
    try:
        jax.config.update("jax_disable_most_optimizations", True)
        assert transforms.called_once() is None
        jax.config.update("jax_disable_most_optimizations", False)
        assert transforms.called_once() == {"xla_backend_optimization_level": 1}
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def test_what_is_computed_anew_saves_memory_in_a_compiled_step():
    """On CPUs for an option of the compiler, which by itself would keep it all the same."""

    def block(x, w):
        return jnp.tanh(jnp.tanh(jnp.tanh(x @ w) @ w) @ w)

    def loss(w, x):
        for _ in range(4):
            x = jax.checkpoint(block)(x, w)
        return x.sum()

    def step(state, batch):
        return {"w": state["w"] - jax.grad(loss)(state["w"], batch["x"])}, {}

    state, batch = {"w": jnp.zeros((8, 8))}, {"x": jnp.zeros((1024, 8))}
    compiled = transforms.compile(PLAIN._replace(train_step=step)).train_step
    found = call_bytes(compiled.trace(state, batch).lower().compile())
    plain = call_bytes(jax.jit(step).lower(state, batch).compile())
    assert found < 0.8 * plain or jax.default_backend() != "cpu"


def one_device():
    return meshes.arranged(Layout(), devices=jax.local_devices()[:1])


@pytest.mark.parametrize("state", [PartitionSpec(), lambda state: {"w": PartitionSpec()}],
                         ids=["one for all", "a function"])  # fmt: skip
def test_a_program_over_a_mesh_does_what_it_does(state):
    traced = []

    def step(state, batch):
        traced.append(batch)
        return train_step(state, batch)

    mesh = one_device()
    program = transforms.shard(PLAIN._replace(train_step=step), mesh, state=state)
    first = program.init(jnp.ones(8), {"scale": jnp.float32(2)})
    assert first["w"].sharding == NamedSharding(mesh, PartitionSpec())
    batch = {"x": np.ones(8, np.float32), "none": np.zeros((8, 2))}
    np.testing.assert_array_equal(program.output_step(first, batch), np.full(8, 2))
    second, _ = program.train_step(first, batch)
    assert first["w"].is_deleted()
    third, numbers = program.train_step(second, batch)
    np.testing.assert_array_equal(third["w"], np.full(8, 18))
    np.testing.assert_array_equal(numbers["before"], np.full(8, 10))
    assert third["w"].sharding == NamedSharding(mesh, PartitionSpec())
    assert len(traced) == 1, "compiled once"


def test_one_device_needs_no_mesh():
    if jax.local_device_count() > 1:
        pytest.skip("there are several")
    assert isinstance(transforms.on_devices(PLAIN).train_step, Fitting)


ROWS = PartitionSpec("data")
STEPS = PartitionSpec(None, ("data", "fsdp"))


@pytest.mark.parametrize("specs, shapes, says", [
    ((ROWS, None), ((6, 4), (6, 4)), r"x \[6, 4\]: 6 rows cannot be split evenly over 4 devices"),
    ((ROWS, STEPS), ((6, 4), (3, 6)), r"x \[3, 6\]: 6 rows cannot be split evenly over 8 devices"),
    ((STEPS, ROWS), ((3, 12), (9,)), r"x \[9\]: 9 rows cannot be split evenly over 4 devices"),
])  # fmt: skip
def test_rows_that_cannot_be_split_are_refused_before_anything_runs(specs, shapes, says):
    """Those of training and of evaluation, which are split as those of training unless it is
    said; axes before the rows may be of any size.
    """
    mesh = AbstractMesh((4, 2), meshes.AXES)
    batch, eval_batch = specs
    program = transforms.shard(PLAIN, mesh, batch=batch, eval_batch=eval_batch)
    for function, shape in zip((program.train_step, program.output_step), shapes, strict=True):
        with pytest.raises(ConfigError, match="rows cannot be split evenly"):
            function(None, {"x": np.zeros(shape)})
    with pytest.raises(ConfigError, match=says):
        program.output_step(None, {"x": np.zeros(shapes[1])})
