"""Translations: NumPy's roll, the theorem that convolution is equivariant, and what stride, dense
layers and global pooling make of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.layers.conv import Conv, avg_pool, max_pool
from jaxcnn.ops.equivariance import deviation, equivariance_error, invariance_error, shift_image

IMAGE = jax.random.normal(jax.random.key(0), (4, 16, 20, 2))
CONV = Conv(5, (3, 3))
PARAMS = CONV.init(jax.random.key(1), IMAGE)
KEY = jax.random.key(2)
SHIFTS = ((0, 0), (1, 0), (0, -1), (2, 3), (-3, 2), (4, -4))
ZERO = pytest.approx(0, abs=2e-6)


def convolve(x):
    return jnp.tanh(jnp.asarray(CONV.apply(PARAMS, x)))


@pytest.mark.parametrize("shift", [*SHIFTS, (16, 0), (0, -20), (99, 99)])
def test_shift_is_a_roll_with_the_wrapped_part_filled(shift):
    moved = np.roll(IMAGE, shift, (1, 2))
    for axis, d in ((1, shift[0]), (2, shift[1])):
        at = [slice(None)] * 4
        at[axis] = slice(0, d) if d > 0 else slice(d, None) if d < 0 else slice(0, 0)
        moved[tuple(at)] = 7
    np.testing.assert_array_equal(shift_image(IMAGE, shift, fill=7), moved)


def test_deviation_of_equal_and_of_unrelated_features():
    a, b = (jax.random.normal(k, (4000, 3)) for k in jax.random.split(KEY))
    assert float(deviation(a, a)) == 0
    assert float(deviation(a, b)) == pytest.approx(1, abs=0.03)
    assert float(deviation(3 * a + 5, 3 * b + 5)) == pytest.approx(float(deviation(a, b)), rel=1e-4)
    assert float(deviation(jnp.ones((4, 2)), jnp.ones((4, 2)))) == 0


def test_convolution_is_equivariant_up_to_its_borders():
    assert equivariance_error(convolve, IMAGE, SHIFTS, margin=1) == [ZERO] * len(SHIFTS)
    # zeros beyond the border are no picture
    assert all(error > 0.01 for error in equivariance_error(convolve, IMAGE, SHIFTS[1:]))


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
@pytest.mark.parametrize("stride", [2, 4])
def test_pooling_follows_multiples_of_its_stride_alone(pool, stride):
    def features(x):
        return pool(convolve(x), (stride, stride))

    even = [(stride, 0), (0, -stride), (-stride, stride)]
    assert equivariance_error(features, IMAGE, even, stride=stride, margin=1) == [ZERO] * 3
    assert (
        min(
            equivariance_error(
                features,
                IMAGE,
                [(1, 0), (0, -1), (stride - 1, stride + 1)],
                stride=stride,
                margin=1,
            )
        )
        > 0.2
    )


def test_pooling_without_a_stride_stays_equivariant():
    def features(x):
        return max_pool(convolve(x), (3, 3), strides=(1, 1), padding="SAME")

    assert equivariance_error(features, IMAGE, SHIFTS, margin=2) == [ZERO] * len(SHIFTS)


def test_a_dense_layer_follows_no_shift():
    size = IMAGE.shape[1] * IMAGE.shape[2]
    weights = jax.random.normal(KEY, (size * 2, size)) / size

    def features(x):
        return (x.reshape(4, -1) @ weights).reshape(*IMAGE.shape[:3], 1)

    errors = equivariance_error(features, IMAGE, SHIFTS)
    assert errors[0] == ZERO
    assert min(errors[1:]) > 0.8


def test_global_pooling_makes_equivariance_invariance():
    """Of what stays in the picture: on an empty border, nothing is lost."""
    framed = jnp.pad(IMAGE, ((0, 0), (6, 6), (6, 6), (0, 0)))
    assert invariance_error(lambda x: convolve(x).mean((1, 2)), framed, SHIFTS) == [ZERO] * len(
        SHIFTS
    )
    assert invariance_error(lambda x: convolve(x).max((1, 2)), framed, SHIFTS) == [ZERO] * len(
        SHIFTS
    )
    assert min(invariance_error(convolve, framed, SHIFTS[1:])) > 0.5  # the maps themselves moved


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ConfigError, match="see invariance_error"):
        equivariance_error(lambda x: x.mean((1, 2)), IMAGE, SHIFTS)
    with pytest.raises(ConfigError, match="leave none of 16 positions"):
        equivariance_error(convolve, IMAGE, [(14, 0)], margin=1)
