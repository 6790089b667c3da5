"""Places and patches against loops, dreams of what is known, drawings at their pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.inspect import dream, features, heatmap, taps
from jaxcnn.layers import Conv, avg_pool, max_pool


class Deep(nn.Module):
    """Strides, padding, pooling; weights above 0, so that what a place sees is what moves it."""

    @nn.compact
    def __call__(self, x):
        positive = nn.initializers.uniform(1.0)
        x = Conv(3, (5, 3), (2, 1), kernel_init=positive, name="first")(x)
        x = max_pool(x, (2, 2)) + avg_pool(x, (2, 2))
        x = Conv(2, (3, 3), padding=((1, 0), (1, 1)), kernel_init=positive, name="last")(x)
        return x.mean((1, 2))


IMAGES = np.random.default_rng(0).uniform(0.1, 1, size=(3, 24, 18, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    variables = Deep().init(jax.random.key(0), IMAGES)
    return lambda x: Deep().apply(variables, x)


def test_what_a_place_sees_is_what_moves_it(network):
    view = taps.layer_view(network, IMAGES, layer="last")
    height, width = taps.spatial_layers(network, IMAGES)["last"][1:3]
    for place in ((0, 0), (2, 3), (height - 1, width - 1), (height - 1, 0)):

        def answer(x, place=place):
            return taps.layer_output(network, x, layer="last")[0, place[0], place[1], 0]

        moved = np.asarray(jax.grad(answer)(IMAGES))[0, ..., 0] > 0
        rows, columns = np.nonzero(moved)
        seen = features.seen_pixels(view, place, IMAGES.shape[1:3])
        assert seen == (
            slice(rows.min(), rows.max() + 1),
            slice(columns.min(), columns.max() + 1),
        )
        assert moved[seen].all()


class Decoded(nn.Module):
    """A layer smaller than the picture, and one larger than it."""

    window: int
    stride: int

    @nn.compact
    def __call__(self, x):
        positive = nn.initializers.uniform(1.0)
        x = Conv(2, (3, 3), (2, 2), kernel_init=positive, name="first")(x)
        sides, steps = (self.window, self.window), (self.stride, self.stride)
        x = nn.ConvTranspose(2, sides, steps, kernel_init=positive, name="up")(x)
        return Conv(1, (3, 3), kernel_init=positive, name="last")(x).mean((1, 2))


@pytest.mark.parametrize("layer", ["up", "last"])
@pytest.mark.parametrize("window, stride", [(2, 2), (3, 2), (4, 2), (2, 3), (5, 3)])
def test_after_a_transposed_convolution_no_pixel_that_is_seen_is_missed(window, stride, layer):
    side = 16
    images = np.random.default_rng(0).uniform(0.1, 1, size=(1, side, side, 1)).astype(np.float32)
    model = Decoded(window, stride)
    variables = model.init(jax.random.key(0), images)

    def decoded(x):
        return model.apply(variables, x)

    view = taps.layer_view(decoded, images, layer=layer)
    moved = np.asarray(
        jax.jacobian(lambda x: taps.layer_output(decoded, x, layer=layer)[0, ..., 0])(images)
    )[:, :, 0, :, :, 0]
    for place in np.ndindex(moved.shape[:2]):
        rows, columns = np.nonzero(moved[place] > 0)
        seen = features.seen_pixels(view, place, (side, side))
        for pixels, part in zip((rows, columns), seen, strict=True):
            if len(pixels):  # a window over zeros alone sees nothing
                assert part.start <= pixels.min() <= part.start + 2
                assert part.stop - 2 <= pixels.max() + 1 <= part.stop


def test_best_places_against_a_loop():
    maps = np.random.default_rng(1).normal(size=(4, 5, 7, 3)).astype(np.float32)
    maps[2, 1:3, 4, 1] = 9  # the first of equals
    found = features.best_places(jnp.asarray(maps))
    for b in range(4):
        for k in range(3):
            every = [(maps[b, y, x, k], -y, -x) for y in range(5) for x in range(7)]
            value, row, column = max(every)
            assert (found.value[b, k], found.row[b, k], found.column[b, k]) == (
                value,
                -row,
                -column,
            )


def test_the_first_filters_are_the_first_layers_kernel(network):
    name, kernel = features.first_filters(network, IMAGES)
    expected = Deep().init(jax.random.key(0), IMAGES)["params"]["first"]["kernel"]
    assert name == "first"
    np.testing.assert_array_equal(kernel, expected)


# ---- dreams


def linear(x):
    return jnp.sum(WEIGHT[None] * x, axis=(1, 2, 3))


WEIGHT = np.random.default_rng(2).normal(size=IMAGES.shape[1:]).astype(np.float32)


def test_one_step_up_by_hand():
    found = dream.ascend(jax.random.key(0), linear, IMAGES, steps=1, rate=0.05, jitter=0)
    step = 0.05 * WEIGHT / np.abs(WEIGHT).mean()
    np.testing.assert_allclose(found, np.clip(IMAGES + step, 0, 1), atol=1e-6)


def test_the_top_of_a_linear_score_is_black_and_white():
    found = dream.ascend(jax.random.key(0), linear, IMAGES, steps=400, rate=0.5, jitter=0)
    large = np.abs(WEIGHT) > 0.01
    np.testing.assert_array_equal(
        np.asarray(found)[:, large], (WEIGHT[large] > 0)[None] * np.ones((3, 1))
    )


def test_jitter_is_taken_back():
    """Where the place does not matter a shift changes nothing."""

    def everywhere(x):
        return jnp.sum(jnp.sin(3 * x), axis=(1, 2, 3))

    still, jittered = (
        dream.ascend(jax.random.key(1), everywhere, IMAGES, steps=5, jitter=j) for j in (0, 4)
    )
    np.testing.assert_allclose(still, jittered, atol=1e-6)
    moved = dream.ascend(jax.random.key(1), linear, IMAGES, steps=5, jitter=4)
    assert np.abs(np.asarray(moved) - IMAGES).max() > 0.01


def test_smoothness_smooths_and_a_flat_score_changes_nothing():
    def flat(x):
        return jnp.zeros(x.shape[0]) * x.sum()

    same = dream.ascend(jax.random.key(0), flat, IMAGES, steps=3)
    np.testing.assert_array_equal(same, IMAGES)
    smooth = dream.ascend(jax.random.key(0), flat, IMAGES, steps=60, smoothness=1.0, jitter=0)
    assert np.abs(np.diff(smooth, axis=1)).mean() < 0.5 * np.abs(np.diff(IMAGES, axis=1)).mean()


def test_a_layer_and_its_channels_as_objectives(network):
    maps = taps.layer_output(network, IMAGES, layer="last")
    whole = dream.layer_strength(network, layer="last")(IMAGES)
    np.testing.assert_allclose(whole, np.mean(np.square(maps), axis=(1, 2, 3)), rtol=1e-5)
    one = dream.layer_strength(network, layer="last", channel=1)(IMAGES)
    np.testing.assert_allclose(one, np.mean(maps[..., 1], axis=(1, 2)), rtol=1e-5)
    with pytest.raises(ConfigError, match="channels 0 to 1"):
        dream.layer_strength(network, layer="last", channel=2)(IMAGES)


# ---- drawings

GREY = np.full((300, 400, 1), 100, np.uint8)


def test_red_speaks_for_and_blue_against():
    values = np.zeros((3, 4), np.float32)
    values[0, 0], values[2, 3] = 1.0, -1.0
    drawn = np.asarray(heatmap.overlay(GREY, values)).astype(int)
    assert drawn.shape == (300, 400, 3)
    red, blue, nothing = drawn[10, 10], drawn[-10, -10], drawn[150, 200]
    assert red[0] > red[2] + 100
    assert blue[2] > blue[0] + 80
    np.testing.assert_array_equal(nothing, 100)


def test_a_map_of_zeros_leaves_the_picture_and_small_ones_are_enlarged():
    drawn = np.asarray(heatmap.overlay(GREY[:30, :40], np.zeros((2, 2))))
    assert drawn.shape == (270, 360, 3)
    assert (drawn == 100).all()


def test_a_grid_shows_each_tile_at_its_place():
    tiles = [np.full((4, 4, 1), v, np.uint8) for v in (10, 20, 30)]
    tiles[1] = np.broadcast_to(np.uint8([200, 0, 0]), (4, 4, 3))
    sheet = np.asarray(heatmap.grid(heatmap.folded(tiles), side=8))
    step = 8 + heatmap.GAP
    assert sheet.shape == (2 * step + heatmap.GAP, 2 * step + heatmap.GAP, 3)
    found = [
        sheet[5 + step * y, 5 + step * x].tolist() for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert found == [[10] * 3, [200, 0, 0], [30] * 3, [heatmap.BACKGROUND] * 3]


def test_shades_of_maps_and_filters():
    np.testing.assert_array_equal(
        heatmap.stretched(np.array([[-1.0, 1.0, 3.0]]))[..., 0], [[0, 128, 255]]
    )
    assert (heatmap.stretched(np.full((2, 2), 7.0)) == 128).all()
    kernel = np.array([[[-2.0], [0.0], [2.0]]])
    np.testing.assert_array_equal(heatmap.filter_tile(kernel)[..., 0], [[0, 128, 255]])
    assert heatmap.filter_tile(np.ones((3, 3, 7))).shape == (3, 3, 1)
