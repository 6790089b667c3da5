"""Small functions against loops over their definitions, without PyTorch: twins of the comparisons
of test-parity.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import alphabet, decoding, filters, gram, heatmaps, masks
from jaxcnn.ops.pixel_shuffle import pixel_shuffle, pixel_unshuffle


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("scale, channels", [(1, 3), (2, 1), (2, 3), (3, 2)])
def test_pixels_are_shuffled_as_the_definition_has_it(scale, channels):
    x = random(2, 3, 4, scale**2 * channels)
    large = np.asarray(pixel_shuffle(jnp.asarray(x), scale))
    assert large.shape == (2, 3 * scale, 4 * scale, channels)
    for b, row, column, c in np.ndindex(*large.shape):
        i, j = row % scale, column % scale
        want = x[b, row // scale, column // scale, (c * scale + i) * scale + j]
        assert large[b, row, column, c] == want
    np.testing.assert_array_equal(pixel_unshuffle(jnp.asarray(large), scale), x)


def test_gram_matrices_and_moments_are_loops_over_the_places():
    maps = random(2, 3, 5, 4)
    want = np.zeros((2, 4, 4))
    for b, row, column in np.ndindex(2, 3, 5):
        want[b] += np.outer(maps[b, row, column], maps[b, row, column])
    np.testing.assert_allclose(gram.gram(jnp.asarray(maps)), want / (3 * 5 * 4), rtol=1e-5)
    found = np.asarray(gram.moments(jnp.asarray(maps)))
    for b, c in np.ndindex(2, 4):
        places = maps[b, :, :, c].astype(np.float64).ravel()
        np.testing.assert_allclose(found[b, 0, c], places.mean(), rtol=1e-4)
        np.testing.assert_allclose(found[b, 1, c], np.sqrt(places.var() + 1e-5), rtol=1e-4)


def test_a_map_of_one_number_has_the_deviation_of_the_papers_code():
    """Its variance is 0: sqrt(1e-5), as Huang and Belongie's own code has it."""
    flat = gram.moments(jnp.full((1, 4, 4, 2), 3.0))
    np.testing.assert_allclose(flat, [[[3.0, 3.0], [0.0031622777, 0.0031622777]]], rtol=1e-4)


def test_adaptive_normalization_gives_the_styles_moments():
    content, style = random(2, 6, 7, 3), 2 + 3 * random(2, 5, 4, 3, seed=1)
    out = gram.adaptive_instance_norm(jnp.asarray(content), jnp.asarray(style))
    np.testing.assert_allclose(
        gram.moments(out), gram.moments(jnp.asarray(style)), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    "decode", [heatmaps.decode_maximum, heatmaps.decode_quarter_offset, heatmaps.decode_newton]
)
def test_a_points_score_is_the_height_of_its_peak(decode):
    heatmap = np.abs(random(2, 9, 11, 3))
    _, score = decode(jnp.asarray(heatmap))
    np.testing.assert_array_equal(score, heatmap.max(axis=(1, 2)))


# Polygons with corners between pixels and outside, and what pycocotools 2.0.11 makes of them
# (frPyObjects of a picture of 20 x 20).
POLYGONS = [
    (
        [
            4.94,
            -0.1,
            -0.64,
            16.89,
            19.08,
            12.35,
            15.05,
            10.96,
            19.57,
            16.95,
            -0.94,
            17.86,
            -0.26,
            15.05,
        ],
        "=13090I14OO1NO5170O1000O1000O1000000O1NMC3=21KB2a0O5",
    ),
    (
        [2.86, 17.99, 10.91, 5.59, 8.3, -0.38, 1.73, 13.75, 13.24, 12.54, 7.44, 20.94],
        "d12`02CM75GN63JO32MO12072FO02O1M11:O1OP4",
    ),
    (
        [
            14.08,
            13.31,
            14.15,
            7.56,
            1.97,
            14.87,
            10.56,
            5.83,
            9.69,
            18.57,
            19.55,
            6.87,
            11.57,
            6.08,
        ],
        "Y21b0001O00001O00NC690N21II0851O1N3N1O>",
    ),
    (
        [12.07, 6.43, 7.62, 18.59, 4.0, 12.71, 0.85, 17.32, 16.32, 4.27, 18.28, 0.29, 6.39, 2.31],
        "T11b00O1e00[O3DL45KL33ONO040KN7441O00O1O001NZ1",
    ),
    (
        [16.52, 4.07, 0.14, 7.9, 3.37, 1.0, 11.77, 5.57, 13.78, 3.39, 19.73, 7.03, 1.32, 12.84],
        "71a02N1O21OEL64IL92HN82GO:0F0:0E0?100O0ONB2?10O101O0O?",
    ),
    (
        [19.4, 8.69, 20.0, 10.0, 8.36, 12.64, 20.89, 19.88, 9.12, 15.67],
        "P6120>1AO?30MB1<0EO;0F0`00O0I0K030N0200",
    ),
    (
        [10.64, 16.29, 8.12, 15.16, 14.65, 19.51, 1.53, 15.04, 19.4, 20.29],
        "X41l10fN0f01ZOO21NOf000",
    ),
    (
        [-0.68, 18.0, 20.59, 20.06, 2.27, 20.4, 18.58, 17.09, 9.56, 4.11],
        "a01a02O1O1N2O2M3N1O1N21O2LJF79IG97GI:6FJ;54M2Oi0",
    ),
    (
        [
            19.32,
            4.85,
            10.86,
            8.74,
            19.48,
            -0.11,
            15.1,
            12.52,
            -0.38,
            14.82,
            -0.65,
            15.67,
            10.28,
            19.44,
        ],
        "?1c00O2O00001O00001N1000NLMK25NL051JO62IN7253MLEOP1",
    ),
    (
        [0.45, 17.51, 0.47, 6.57, 8.47, 20.25, 11.37, 4.7, 4.32, 18.54, 3.97, 1.74, 5.34, 11.89],
        "7:;N3M3MJ;6D12M4L3ML4Mc5",
    ),
]


@pytest.mark.parametrize("corners, counts", POLYGONS)
def test_polygons_are_those_of_pycocotools(corners, counts):
    want = masks.decode({"size": [20, 20], "counts": counts})
    np.testing.assert_array_equal(masks.fill_polygons([corners], (20, 20)), want)


def test_a_line_may_be_as_long_as_there_is_room():
    np.testing.assert_array_equal(alphabet.encode(["ab"], alphabet="ab", length=2), [[1, 2]])
    with pytest.raises(DataError, match="at most 1 fit"):
        alphabet.encode(["ab"], alphabet="ab", length=1)


def test_tokens_without_a_name_are_numbers():
    special = {decoding.PAD, decoding.START, decoding.END}
    tokens = [token for token in range(6) if token not in special]
    names = tuple("abcdef")
    assert decoding.to_words(tokens, names=names) == tuple(names[token] for token in tokens)
    assert decoding.to_words([*tokens, 6, -1], names=names)[-2:] == ("<6>", "<-1>")


@pytest.mark.parametrize("sigma, truncate", [(0.0, 0.0), (0.0, 4.0), (1.0, 0.0), (1.0, 4.0)])
def test_a_gaussian_of_no_extent_is_refused(sigma, truncate):
    if sigma and truncate:
        assert filters.gaussian(sigma=sigma, truncate=truncate).shape == (9, 9, 1)
        return
    with pytest.raises(ConfigError, match="both must be positive"):
        filters.gaussian(sigma=sigma, truncate=truncate)


def test_derivatives_are_steered_to_eight_directions():
    bank = filters.steered()
    assert bank.shape[-1] == 8
    for i in range(8):
        np.testing.assert_allclose(bank[..., i], -bank[..., (i + 4) % 8], atol=1e-12)
