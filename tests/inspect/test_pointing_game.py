"""The pointing game of `benchmarks/pointing_game.py`, played with one network."""

import jax
import numpy as np
import pytest

from jaxcnn.core.program import make_program
from jaxcnn.errors import DataError


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
