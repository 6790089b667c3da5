"""The pointing game of `benchmarks/pointing_game.py`, played with one network."""

import jax
import numpy as np
import pytest

from jaxcnn.core.program import make_program
from jaxcnn.errors import DataError
from jaxcnn.metrics.pointing import pointing_hits


@pytest.mark.slow
def test_what_was_learned_is_pointed_at(tmp_path):
    from benchmarks import pointing_game as game

    try:
        one, two = game.scenes(300, 1), game.scenes(300, 2)
    except DataError as error:
        pytest.skip(str(error))
    run = game.trained(0, 600, tmp_path)
    e, learned = run.experiment, run.state

    def hits(state, rows, method):
        return game.share_of_hits(e, state, rows, method, of_label=rows is two)

    assert hits(learned, one, "gradcam") > 0.94  # .962 ± .006 with three seeds
    assert hits(learned, two, "gradcam") > 0.8
    random = [make_program(e, steps=1).init(jax.random.key(100 + i)) for i in range(3)]
    # which of two digits is meant no random network knows
    assert np.mean([hits(state, two, "gradcam") for state in random]) < 0.55
    assert np.mean([hits(state, one, "gradient") for state in random]) < 0.5


@pytest.fixture(scope="module")
def game():
    from benchmarks import pointing_game

    try:
        pointing_game.digits("eval")
    except DataError as error:
        pytest.skip(str(error))
    return pointing_game


def test_in_a_grid_brightness_tells_nothing_and_each_digit_is_asked_for(game):
    grid = game.grids("eval", 30, seed=3)
    assert grid["image"].shape == (30, 56, 56, 1)
    rows = game.asked(grid)
    source, labels = game.digits("eval")
    for image, label, (y0, x0, y1, x1) in zip(
        *(rows[n] for n in ("image", "label", "box")), strict=True
    ):
        cell = image[round(56 * y0) : round(56 * y1), round(56 * x0) : round(56 * x1), 0]
        assert abs(cell.mean() - game.MEAN) < 1.5
        assert abs(cell.std() - game.SPREAD) < 1.5
        same = np.abs(source - cell).max((1, 2)) < 1
        assert labels[same].tolist() == [label]
    places = rows["label"].reshape(30, 4)
    assert all(len(set(row)) == 4 for row in places.tolist())
    np.testing.assert_array_equal(grid["labels"].sum(1), 4)
    assert all(grid["labels"][i, places[i]].all() for i in range(30))


def test_a_map_that_knows_no_class_hits_one_in_four_exactly(game):
    """Wherever it points: here at the brightest pixel."""
    rows = game.asked(game.grids("eval", 50, seed=4))
    hits = pointing_hits(rows["image"][..., 0], rows["box"])
    assert hits.mean() == pytest.approx(0.25)


@pytest.mark.slow
def test_in_a_grid_random_weights_fall_to_chance(game, tmp_path):
    run = game.trained(0, 600, tmp_path, grid=True)
    e, rows = run.experiment, game.GAMES["grid"](1000)

    def hits(state):
        return game.share_of_hits(e, state, rows, "gradcam", of_label=True)

    assert hits(run.state) > 0.98  # .998 ± .001 with three seeds
    random = [make_program(e, steps=1).init(jax.random.key(100 + i)) for i in range(3)]
    assert np.mean([hits(state) for state in random]) == pytest.approx(0.25, abs=0.06)
