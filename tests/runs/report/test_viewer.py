"""What a model says of examples, batch by batch, against the formula of a model without a net."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError
from jaxcnn.runs.report.examples import LOOKED_AT, Viewer
from tests.tiny import arrays, tiny


class Means(nn.Module):
    """The logits of three classes are the means of rows of an image, and a bias."""

    @nn.compact
    def __call__(self, image, *, train: bool):
        bias = self.param("bias", nn.initializers.zeros, (3,))
        return image[:, jnp.array([0, 2, 4])].mean((2, 3)) * 8 + bias[None]


EVAL = arrays(10, seed=3)


def run_of(**fields):
    """What a Viewer asks of a run, whose state is that of the start."""
    data = Arrays(train=arrays(4), eval=EVAL, label_names=("a", "b", "c"))
    e = tiny(model=Means(), data=data, augment=(), ema=None, eval_batch_size=4, **fields)
    state = make_program(e, steps=1).init(jax.random.key(0))
    record = {"data": {"entries": [], "label_names": [], "sizes": {}}}
    return SimpleNamespace(experiment=e, state=state, record=record, decided=lambda e: e)


@pytest.fixture(scope="module")
def viewer():
    return Viewer(run_of())


def expected():
    """(loss, label, probability) of each example."""
    logits = EVAL["image"][:, [0, 2, 4]].astype(np.float64).mean((2, 3)) / 255 * 8
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(p[np.arange(10), EVAL["label"]]), p.argmax(1), p.max(1)


def test_each_example_is_seen_once_though_the_last_batch_is_filled(viewer):
    """Ten, in batches of four."""
    seen = viewer.see()
    loss, label, probability = expected()
    assert seen.size == 10
    assert seen.indices.tolist() == list(range(10))
    np.testing.assert_allclose(seen.loss, loss, rtol=1e-5)
    assert seen.label.tolist() == label.tolist()
    assert seen.truth.tolist() == EVAL["label"].tolist()
    np.testing.assert_allclose(seen.confidence, probability, rtol=1e-5)
    assert len(set(seen.digests)) == 10


def test_of_all_examples_some_are_seen_at_even_distances(viewer):
    assert viewer.see(most=10**6).indices.tolist() == list(range(10))
    some = viewer.see(most=4)
    assert some.indices.tolist() == [0, 2, 5, 7]
    np.testing.assert_allclose(some.loss, expected()[0][[0, 2, 5, 7]], rtol=1e-5)
    assert some.digests == tuple(viewer.see().digests[i] for i in (0, 2, 5, 7))
    assert LOOKED_AT == 2000  # what --examples says in its help


def test_what_is_said_of_chosen_examples_comes_in_their_order(viewer):
    chosen = np.array([9, 1, 4, 0, 7])
    said, batch = viewer.rows(chosen)
    _, label, probability = expected()
    assert [row["name"] for row in said] == ["abc"[i] for i in label[chosen]]
    found = [row["probability"] for row in said]
    np.testing.assert_allclose(found, probability[chosen], rtol=1e-5)
    np.testing.assert_allclose(batch["image"], EVAL["image"][chosen] / 255, rtol=1e-5)
    assert batch["label"].tolist() == EVAL["label"][chosen].tolist()


def test_what_fills_a_batch_is_marked(viewer):
    """By the mask that every batch has, so that no metric counts it."""
    masks = [batch["mask"].tolist() for _, _, (_, _, batch) in viewer._run(np.arange(5), 4)]
    assert masks == [[1, 1, 1, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize("batch_size, eval_batch_size, rows", [(8, None, 10), (8, 3, 3)])
def test_a_batch_is_no_larger_than_the_split(batch_size, eval_batch_size, rows):
    run = run_of()
    run.experiment = dataclasses.replace(
        run.experiment, batch_size=batch_size, eval_batch_size=eval_batch_size
    )
    found = [len(raw["label"]) for _, raw, _ in Viewer(run)._run(np.arange(10), Viewer(run)._rows)]
    assert set(found) == {rows}


def test_a_split_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="test"):
        Viewer(run_of(), split="test")
