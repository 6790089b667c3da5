"""Readers and finders of text: shapes, the published size, what a frame sees, and compute in
bfloat16.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.models.crnn import CRNN
from jaxcnn.models.text_detection import TextKernelNet, enlarge

SMALL = CRNN(
    num_characters=5,
    widths=((4,), (6,)),
    pools=((2, 2), (2, 2)),
    folded=8,
    fold_columns=3,
    hidden=4,
    layers=2,
)
FINDER = TextKernelNet(widths=(4, 6, 8), blocks=1, pyramid=9, stem=4, stride=2)


def count(model, shape):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))


def initialized(model, shape):
    image = jax.random.uniform(jax.random.key(1), shape)
    return image, jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(image)


def test_published_crnn_has_the_published_size():
    """8.3 million parameters (2015, table 5), 36 characters; W / 4 frames."""
    assert round(count(CRNN(), (1, 32, 100, 1)) / 1e6, 1) == 8.3
    shape = jax.eval_shape(
        lambda: CRNN().init_with_output(jax.random.key(0), jnp.zeros((2, 32, 100, 1)), train=False)
    )[0]
    assert shape.shape == (2, 25, 37)


def test_a_stage_of_crnn_has_as_many_convolutions_as_widths():
    """However many: each that is added has its 9 * 4 * 4 weights, and BatchNorm's scale and
    bias."""
    sizes = [count(SMALL.clone(widths=((4,) * n, (6,))), (1, 12, 20, 1)) for n in range(1, 12)]
    assert np.diff(sizes).tolist() == [9 * 4 * 4 + 2 * 4] * 10


@pytest.mark.parametrize(
    "model, shape, output",
    [
        (SMALL, (2, 12, 20, 1), (2, 5, 6)),
        (SMALL.clone(layers=0), (1, 8, 32, 3), (1, 8, 6)),
        (SMALL.clone(pools=((2, 1), (2, 1))), (1, 8, 10, 1), (1, 10, 6)),
        (SMALL.clone(pools=((2, 2), (1, 1))), (1, 8, 10, 1), (1, 5, 6)),
        (FINDER, (2, 32, 48, 1), (2, 16, 24)),
        (FINDER.clone(stride=4), (2, 32, 48, 3), (2, 8, 12)),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_shapes_and_dtypes(model, shape, output, dtype):
    def logits():
        image = jnp.zeros(shape, dtype)
        variables = model.init(jax.random.key(0), jnp.zeros(shape), train=False)
        params = jax.tree.map(lambda x: x.astype(dtype), variables["params"])
        return model.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )[0]

    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm promotes bfloat16 by itself
        found = jax.eval_shape(logits)
    assert (found.shape, found.dtype) == (output, dtype)


@pytest.mark.parametrize(
    "model, shape",
    [(SMALL.clone(layers=1), (2, 8, 16, 1)), (FINDER, (2, 16, 16, 1))],
    ids=["crnn", "finder"],
)
def test_every_parameter_has_a_finite_gradient(model, shape):
    image, variables = initialized(model, shape)

    @jax.jit
    def gradient(variables):
        def loss(params):
            return (
                model.apply(
                    {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
                )[0]
                ** 2
            ).sum()

        return jax.grad(loss)(variables["params"])

    for leaf in jax.tree.leaves(gradient(variables)):
        assert np.isfinite(leaf).all()
        assert np.any(leaf != 0)


@pytest.mark.parametrize("layers", [0, 1])
def test_recurrent_layers_read_the_whole_line_and_convolutions_their_surroundings(layers):
    """With an LSTM each frame depends on each column, in either direction; without one only on
    those near it.
    """
    model = SMALL.clone(layers=layers)
    image, variables = initialized(model, (1, 8, 64, 1))
    frames = jax.jit(lambda x: model.apply(variables, x, train=False)[0])
    changed = [image.at[:, :, column].add(0.5) for column in (2, 30, 61)]
    # [3 changes, 16 frames], by one program
    moved = np.stack([abs(frames(x) - frames(image)).max(-1) > 0 for x in changed])
    assert [bool(row[column // 4]) for row, column in zip(moved, (2, 30, 61), strict=True)] == [
        True
    ] * 3
    far = np.abs(4 * np.arange(16)[None] + 1.5 - np.array([[2], [30], [61]])) > 14
    assert moved[far].all() if layers else not moved[far].any()


def test_recurrence_equals_its_definition():
    """One bidirectional layer, written out gate by gate (Hochreiter, Schmidhuber 1997, with forget
    gates).
    """
    model = SMALL.clone(layers=1)
    image, variables = initialized(model, (2, 8, 24, 1))
    _, state = model.apply(
        variables,
        image,
        train=False,
        capture_intermediates=lambda m, _: m.name in ("Dropout_0", "head"),
        mutable=True,
    )
    seen = state["intermediates"]
    x = np.asarray(seen["Dropout_0"]["__call__"][0], np.float64)
    ways = []
    for way in ("forward", "backward"):
        p = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), variables["params"][f"lstm1_{way}_cell"]
        )
        hidden = cell = np.zeros((2, 4))
        columns = list(range(x.shape[1]))[:: 1 if way == "forward" else -1]
        outputs = {}
        for t in columns:
            gates = {
                g: x[:, t] @ p[f"i{g}"]["kernel"]
                + hidden @ p[f"h{g}"]["kernel"]
                + p[f"h{g}"]["bias"]
                for g in "ifgo"
            }
            i, f, o = (1 / (1 + np.exp(-gates[g])) for g in "ifo")
            cell = f * cell + i * np.tanh(gates["g"])
            hidden = o * np.tanh(cell)
            outputs[t] = hidden
        ways.append(np.stack([outputs[t] for t in range(x.shape[1])], 1))
    head = variables["params"]["head"]
    expected = np.concatenate(ways, -1) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    np.testing.assert_allclose(seen["head"]["__call__"][0], expected, atol=1e-5)


def test_enlarge_repeats_cells():
    x = jnp.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(enlarge(x, 3), np.repeat(np.repeat(x, 3, axis=1), 3, axis=2))
    assert enlarge(x, 1) is x


@pytest.mark.parametrize(
    "model, shape, says",
    [
        (SMALL, (1, 8, 30, 1), "width is 30; it must be a multiple of 4"),
        (SMALL, (1, 10, 32, 1), "height is 10"),
        (SMALL, (1, 8, 32), "found shape"),
        (SMALL.clone(pools=((2, 2),)), (1, 8, 32, 1), "2 widths for 1 pools"),
        (FINDER, (1, 32, 36, 1), "32x36; take multiples of 8"),
        (FINDER.clone(stride=3), (1, 32, 32, 1), "stride is 3"),
        (FINDER, (32, 32, 1), "found shape"),
    ],
)
def test_what_does_not_fit_is_refused(model, shape, says):
    with pytest.raises(ConfigError, match=says):
        model.init(jax.random.key(0), jnp.zeros(shape), train=False)
