"""What tasks let be explained: one score a class or value, row by row, that of the prediction
first.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.tasks.binary import BinaryClassification
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.dense_detection import DenseDetection
from jaxcnn.tasks.dense_regression import DenseRegression
from jaxcnn.tasks.detection import CenterDetection
from jaxcnn.tasks.keypoints import Keypoints
from jaxcnn.tasks.localization import Localization
from jaxcnn.tasks.multi_label import MultiLabel
from jaxcnn.tasks.regression import Regression
from jaxcnn.tasks.segmentation import Segmentation

RANDOM = np.random.default_rng(0)
ROWS = 6


def normal(*shape):
    return jnp.asarray(RANDOM.normal(size=(ROWS, *shape)), jnp.float32)


CENTERS = {"heatmap": normal(4, 5, 3), "size": normal(4, 5, 2), "offset": normal(4, 5, 2)}
DENSE = DenseDetection(num_classes=3, image_size=(32, 32), strides=(8, 16), limits=(16.0,))
PLACES = len(DENSE.places()[0])
FCOS = {
    "logits": normal(PLACES, 3),
    "distances": jnp.abs(normal(PLACES, 4)),
    "centerness": normal(PLACES),
}

# task, outputs, which class its prediction puts first, number of scores
TABLE = {
    "classification": (Classification(num_classes=4), normal(4), lambda p: p["label"], 4),
    "auxiliary": (
        Classification(num_classes=4),
        (normal(4), normal(4)),
        lambda p: p["label"],
        4,
    ),
    "binary": (BinaryClassification(), normal(1), lambda p: 0 * p["label"], 1),
    "multi_label": (
        MultiLabel(num_classes=5),
        normal(5),
        lambda p: p["probabilities"].argmax(-1),
        5,
    ),
    "localization": (
        Localization(num_classes=3),
        {"logits": normal(3), "box": normal(4)},
        lambda p: p["label"],
        3,
    ),
    "centers": (CenterDetection(num_classes=3), CENTERS, lambda p: p["labels"][:, 0], 3),
    "fcos": (DENSE, FCOS, lambda p: p["labels"][:, 0], 3),
    "regression": (
        Regression(num_values=2, mean=(1.0, 2.0), std=(3.0, 4.0)),
        normal(2),
        lambda p: np.zeros(ROWS),
        2,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_prediction_is_what_is_explained(name):
    task, outputs, first, count = TABLE[name]
    scores, best = jax.jit(task.explained)(outputs)
    assert scores.shape == (ROWS, count)
    assert (scores.dtype, best.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(best, first(task.predict(outputs)))


@pytest.mark.parametrize("name", TABLE)
def test_the_score_of_a_row_is_of_that_row(name):
    """Its gradient is 0 in all others, and is there."""
    task, outputs, _, _ = TABLE[name]
    gradient = jax.grad(lambda o: task.explained(o)[0][2].sum())(outputs)
    there = sum(np.abs(np.asarray(x)).reshape(ROWS, -1).sum(-1) for x in jax.tree.leaves(gradient))
    assert there[2] > 0
    assert not np.delete(there, 2).any()


def test_values_are_explained_in_their_own_unit():
    task, outputs, _, _ = TABLE["regression"]
    np.testing.assert_allclose(task.explained(outputs)[0], task.predict(outputs)["values"])
    assert task.explained_names(names=("height", "width")) == ("height", "width")
    maps = normal(3, 4, 2)
    dense = DenseRegression(num_values=2, mean=(1.0, 2.0), std=(3.0, 4.0))
    expected = np.mean(dense.predict(maps)["value_map"], axis=(1, 2))
    np.testing.assert_allclose(dense.explained(maps)[0], expected, rtol=1e-5)


def test_the_class_of_a_segmentation_is_the_largest_besides_the_background():
    maps = np.zeros((3, 4, 4, 3), np.float32)
    maps[..., 0] = 1  # background everywhere
    maps[0, :2, :2, 1] = 2
    maps[0, 3, :3, 2] = 9
    maps[1, 0, 0, 2] = 2
    scores, best = Segmentation(num_classes=3).explained(jnp.asarray(maps))
    np.testing.assert_array_equal(best, [1, 2, 0])
    np.testing.assert_allclose(scores, maps.sum((1, 2)))
    names = Segmentation(num_classes=3).explained_names(names=("cat", "dog"))
    assert names == ("background", "cat", "dog")


def test_names_of_a_yes_or_no():
    assert BinaryClassification().explained_names(names=("no", "yes")) == ("yes",)
    shoes = BinaryClassification(positive=(1, 2))
    assert shoes.explained_names(names=("hat", "boot", "clog")) == ("boot or clog",)


def test_a_task_without_classes_says_so():
    with pytest.raises(ConfigError, match="Keypoints has no score"):
        Keypoints(num_points=3).explained(normal(4, 4, 3))
