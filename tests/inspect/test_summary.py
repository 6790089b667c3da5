"""The table of layers against published tables, closed forms, and brute force (which input pixels
change an output).
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.inspect import receptive_field, summary
from jaxcnn.layers import LRN, Conv, FixedFilters, avg_pool, max_pool
from jaxcnn.models import MODELS, TOKEN_MODELS, build
from jaxcnn.models.instances import CenterMaskNet
from jaxcnn.models.speed import MirrorAveraged, SpeedNet
from jaxcnn.ops.convolution import formulation
from jaxcnn.ops.filters import sobel


def _layers(model, *shapes, train=False):
    return summary.summarize_layers(
        model,
        tuple(jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in shapes),
        train=train,
    )


def test_lenet5_is_the_table_of_the_paper():
    """LeCun et al. 1998, section II-B: sizes, trainable parameters and connections, which count the
    biases; 340,908 in all.
    """
    layers = {layer.name: layer for layer in _layers(build("lenet5")[0], (28, 28, 1))}
    published = {  # output, trainable parameters, connections
        "C1": ((28, 28, 6), 156, 122_304),
        "S2": ((14, 14, 6), 12, 5_880),
        "C3": ((10, 10, 16), 1_516, 151_600),
        "S4": ((5, 5, 16), 32, 2_000),
        "C5": ((1, 1, 120), 48_120, 48_120),
        "F6": ((84,), 10_164, 10_164),
    }
    assert list(layers) == [*published, "output"]
    for name, (shape, params, connections) in published.items():
        layer = layers[name]
        assert (layer.shape, layer.params, layer.macs + layer.activations) == (
            shape,
            params,
            connections,
        ), name
    assert layers["output"].macs == 840
    assert (
        sum(layer.macs + layer.activations for layer in layers.values())
        - layers["output"].activations
        == 340_908
    )
    assert [layers[name].receptive_field for name in ("C1", "S2", "C3", "S4", "C5")] == [
        (n, n) for n in (5, 6, 14, 16, 32)
    ]


def test_rgb_digit_net_is_the_table_of_the_course_notes():
    """Ng, week 1, "CNN Example": activation shape, activation size, parameters."""
    layers = _layers(build("rgb_digit_net")[0], (32, 32, 3))
    assert [(layer.shape, layer.activations, layer.params) for layer in layers] == [
        ((28, 28, 6), 4_704, 456),
        ((14, 14, 6), 1_176, 0),
        ((10, 10, 16), 1_600, 2_416),
        ((5, 5, 16), 400, 0),
        ((120,), 120, 48_120),
        ((84,), 84, 10_164),
        ((10,), 10, 850),
    ]
    assert [layer.kind for layer in layers] == [
        "Conv",
        "max_pool",
        "Conv",
        "max_pool",
        "Dense",
        "Dense",
        "Dense",
    ]
    assert layers[0].macs == 28 * 28 * 5 * 5 * 3 * 6


SIZES = (
    "vgg11",
    "vgg19_bn",
    "resnet101",
    "resnet152",
    "densenet161",
    "densenet169",
    "densenet201",
    "convnext_base",
    "convnext_large",
)
SIZES += ("vgg13", "vgg13_bn", "vgg19", "resnet34", "convnext_small", "wide_resnet50_2")
SIZES += tuple(f"efficientnet_b{i}" for i in range(1, 8))
# other sizes of what is here
FAMILIES = [name for name in MODELS if name not in SIZES]


# GMACs at the size of `build`: torchvision's `_ops` (at its rounding to 0.001)
GMACS = {
    "alexnet_torchvision": 0.714,
    "vgg16": 15.470,
    "googlenet_bn": 1.498,
    "inception_v3": 5.713,
    "resnet18": 1.814,
    "resnet50": 4.089,
    "resnext50_32x4d": 4.230,
    "densenet121": 2.834,
    "mobilenet_v2": 0.301,
    "mobilenet_v3_large": 0.217,
    "mobilenet_v3_small": 0.057,
    "efficientnet_b0": 0.386,
    "convnext_tiny": 4.456,
}


def test_the_published_multiplications_are_compared():
    assert set(GMACS) <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_totals_are_those_of_the_model_and_of_the_jaxpr(name):
    model, shape = build(name)
    dtype = jnp.int32 if name in TOKEN_MODELS else jnp.float32
    layers = summary.summarize_layers(model, (jax.ShapeDtypeStruct((1, *shape), dtype),))
    x = jnp.zeros((1, *shape), dtype)
    if name in GMACS:
        assert summary.total_macs(layers) / 1e9 == pytest.approx(GMACS[name], rel=0.005, abs=5e-4)
    variables = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, x, train=False))
    assert summary.total_params(layers) == sum(
        leaf.size for leaf in jax.tree.leaves(variables["params"])
    )
    if name not in (
        "lenet5",
    ):  # its table of connections, sums and distances are no matrix products
        with formulation("natural"):
            jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, x)
        assert summary.total_macs(layers) == _multiplications(jaxpr.jaxpr)


class Chain(nn.Module):
    """Functions of the array in a row; those that make a module make it in here."""

    steps: tuple

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        for step in self.steps:
            x = step(x)
        return x


class Single(nn.Module):
    """One layer as a model."""

    layer: nn.Module

    def __call__(self, x, *, train: bool = False):
        return self.layer(x)


def _multiplications(jaxpr) -> int:
    """Multiply-accumulates of a jaxpr, from the shapes of its convolutions and matrix products; for
    one example.
    """
    total = 0
    for eqn in jaxpr.eqns:
        shapes = [atom.aval.shape for atom in eqn.invars]
        out = int(np.prod(eqn.outvars[0].aval.shape)) if eqn.outvars else 0
        if eqn.primitive.name == "conv_general_dilated":
            features = shapes[1][eqn.params["dimension_numbers"].rhs_spec[0]]
            if any(d > 1 for d in eqn.params["lhs_dilation"]):
                # each input pixel meets the whole kernel once
                out = int(np.prod(shapes[0][:-1])) * features
            total += out * int(np.prod(shapes[1])) // features
        elif eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            total += out * int(np.prod([shapes[0][d] for d in contracted]))
        for inner in jax.tree.leaves(
            eqn.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr") or hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            total += _multiplications(inner) if hasattr(inner, "eqns") else 0
    return total


CONVOLUTIONS = [
    (Conv(8, (3, 3), feature_group_count=4), (9, 10, 8)),
    (Conv(8, (3, 3), feature_group_count=8, strides=(2, 2), use_bias=False), (9, 10, 8)),
    (Conv(5, (3, 2), kernel_dilation=(2, 3), padding="VALID"), (12, 13, 4)),
    (Conv(5, (7,), strides=(3,)), (40, 2)),
    (Conv(5, (2, 3, 4), padding="VALID"), (5, 6, 7, 2)),
    (Conv(4, (1, 1)), (6, 6, 3)),
    (nn.ConvTranspose(5, (4, 4), strides=(2, 2)), (6, 7, 3)),
    (nn.ConvTranspose(5, (3,), strides=(1,)), (9, 3)),
    (nn.Dense(7), (4, 5, 6)),
    (nn.DenseGeneral((3, 4)), (6,)),
]


@pytest.mark.parametrize(
    "layer, shape",
    CONVOLUTIONS,
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_multiplications_are_those_of_the_jaxpr(layer, shape):
    (row,) = _layers(Single(layer), shape)
    x = jnp.zeros((1, *shape))
    variables = layer.init(jax.random.key(0), x)
    with formulation("natural"):
        jaxpr = jax.make_jaxpr(lambda v: layer.apply(v, x))(variables)
    expected = _multiplications(jaxpr.jaxpr)
    assert (row.macs, row.params) == (
        expected,
        sum(leaf.size for leaf in jax.tree.leaves(variables)),
    )
    assert row.shape == layer.apply(variables, x).shape[1:]


def test_a_local_convolution_uses_each_weight_once():
    (row,) = _layers(Single(nn.ConvLocal(4, (3, 3), padding="VALID")), (6, 7, 2))
    assert row.macs == row.params - 4 * 5 * 4 == (4 * 5) * (3 * 3 * 2) * 4


def _seen(model, shape, axis) -> tuple[int, float]:
    """Receptive field and stride along one axis by brute force: which pixels, made huge, change an
    output position.

    With positive pixels and weights nothing cancels, and every window of a max-pool passes a huge
    one on.
    """
    x = jax.random.uniform(jax.random.key(1), (1, *shape), minval=0.5)
    variables = jax.tree.map(jnp.abs, model.init(jax.random.key(0), x))

    def outputs(pixel):
        factor = jnp.where(jnp.arange(shape[axis]) == pixel, 1e4, 1.0)
        y = model.apply(
            variables,
            x * jnp.expand_dims(factor, [d for d in range(len(shape) + 1) if d != axis + 1]),
        )
        return jnp.moveaxis(y, axis + 1, 0).reshape(y.shape[axis + 1], -1)

    # the first row has no huge pixel
    y = np.array(jax.jit(lambda: jax.lax.map(outputs, jnp.arange(-1, shape[axis])))())
    touched = (y[1:] != y[:1]).any(-1)  # [pixels, outputs]
    first, last = touched.argmax(0), shape[axis] - 1 - touched[::-1].argmax(0)
    # positions whose field no border cuts
    inner = np.flatnonzero((first > 0) & (last < shape[axis] - 1) & touched.any(0))
    stride = (first[inner[-1]] - first[inner[0]]) / (inner[-1] - inner[0])
    return int((last - first + 1)[inner].max()), stride


class Residual(nn.Module):
    """A residual block with a strided shortcut."""

    @nn.compact
    def __call__(self, x):
        y = nn.relu(Conv(4, (3, 3), strides=(2, 2), use_bias=False)(x))
        y = Conv(4, (3, 3), use_bias=False)(y)
        return nn.relu(y + Conv(4, (1, 1), strides=(2, 2), use_bias=False)(x))


class Inception(nn.Module):
    """Branches of different reach, concatenated along channels."""

    @nn.compact
    def __call__(self, x):
        branches = [
            Conv(2, (1, 1))(x),
            Conv(2, (5, 5))(Conv(2, (1, 1))(x)),
            Conv(2, (1, 1))(max_pool(x, (3, 3), strides=(1, 1), padding="SAME")),
        ]
        return jnp.concatenate([*branches, Conv(2, (3, 3), kernel_dilation=(3, 3))(x)], axis=-1)


def _space_to_depth(x):
    b, h, w, c = x.shape
    return (
        x.reshape(b, h // 2, 2, w // 2, 2, c)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(b, h // 2, w // 2, 4 * c)
    )


def _shuffle(x):
    return x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)


def _conv(*arguments, **options):
    return lambda x: Conv(*arguments, **options)(x)


def _in_turn(length: int):
    """The same convolution `length` times, in a scan."""

    def over(x):
        def body(layer, carry, _):
            return nn.relu(layer(carry)), ()

        scan = nn.scan(
            body, variable_broadcast="params", split_rngs={"params": False}, length=length
        )
        return scan(Conv(4, (3, 3), kernel_dilation=(2, 1)), x, None)[0]

    return over


THREE = _conv(4, (3, 3))
DOWN = _conv(4, (3, 3), strides=(2, 2))
CHAINS = {
    "convolutions": (_conv(3, (5, 3)), DOWN, _conv(4, (3, 3), kernel_dilation=(2, 1)), THREE),
    "pools": (
        THREE,
        lambda x: max_pool(x, (3, 3), strides=(2, 2)),
        THREE,
        lambda x: avg_pool(x, (2, 2)),
        _conv(4, (1, 1)),
    ),
    "residual": (THREE, lambda x: Residual()(x), lambda x: Residual()(x)),
    "inception": (
        lambda x: Inception()(x),
        lambda x: max_pool(x, (2, 2)),
        lambda x: Inception()(x),
    ),
    "strided slice": (THREE, lambda x: x[:, 1::2, ::2], THREE),
    "explicit padding": (
        lambda x: jnp.pad(x, ((0, 0), (3, 1), (2, 2), (0, 0))),
        _conv(4, (5, 5), padding="VALID"),
    ),
    "space to depth": (THREE, _space_to_depth, THREE),
    "channel shuffle": (THREE, _shuffle, THREE),
    "across channels": (
        THREE,
        lambda x: LRN()(x),
        lambda x: nn.LayerNorm()(x),
        lambda x: nn.Dense(4)(x),
        DOWN,
    ),
    "remat": (lambda x: nn.remat(Residual)()(x), THREE),
    "scan": (THREE, _in_turn(3)),
    "split channels": (
        THREE,
        lambda x: nn.glu(x),
        lambda x: jnp.concatenate([nn.Dense(3)(part) for part in jnp.split(x, 2, axis=-1)], -1),
    ),
    "jit": (THREE, jax.jit(lambda x: max_pool(nn.silu(x), (2, 2))), THREE),
    "transposed": (DOWN, lambda x: nn.ConvTranspose(4, (4, 4), strides=(2, 2))(x)),
    "upsampled": (THREE, lambda x: jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2), THREE),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("axis", [0, 1])
def test_receptive_field_is_what_an_output_sees(name, axis):
    model = Chain((*CHAINS[name], _conv(1, (1, 1))))
    last = _layers(model, (48, 48, 2))[-1]
    field, stride = _seen(model, (48, 48, 2), axis)
    assert last.receptive_field[axis] == field
    # the edges of up-sampled fields alternate
    assert last.stride[axis] == pytest.approx(stride, rel=0.04)


def test_a_transposed_convolution_halves_the_stride():
    layers = _layers(Chain(CHAINS["upsampled"]), (48, 48, 2))
    assert layers[-1].stride == (0.5, 0.5)
    layers = _layers(Chain(CHAINS["transposed"]), (48, 48, 2))
    assert [layer.stride for layer in layers] == [(2, 2), (1, 1)]


@pytest.mark.parametrize(
    "gate",
    [
        lambda x: x * nn.sigmoid(nn.Dense(x.shape[-1])(jnp.mean(x, axis=(1, 2), keepdims=True))),
        lambda x: (
            x
            + jax.nn.softmax(jnp.einsum("bhwc,bijc->bhwij", x, x), axis=(3, 4)).sum((3, 4))[
                ..., None
            ]
        ),
        lambda x: x.reshape(x.shape[0], -1, x.shape[-1])[:, ::-1].reshape(x.shape),
        lambda x: jax.lax.while_loop(
            lambda carry: carry[0].sum() < 0,
            lambda carry: (jnp.roll(carry[0], (1, 1), axis=(1, 2)), carry[1] + 1),
            (x, 0),
        )[0],
        lambda x: x.at[:, ::-1].multiply(x),
    ],
    ids=["squeeze-and-excitation", "attention", "unknown order", "loop", "scatter"],
)
def test_what_mixes_all_positions_sees_the_whole_image(gate):
    layers = _layers(Chain((DOWN, gate, THREE)), (16, 12, 2))
    assert all(
        field >= size for field, size in zip(layers[-1].receptive_field, (16, 12), strict=True)
    )


@pytest.mark.parametrize(
    "size, window, stride, padding, dilation",
    [
        (28, 5, 1, "VALID", 1),
        (28, 7, 2, "SAME", 1),
        (17, 3, 2, 1, 2),
        (9, 4, 3, (0, 2), 1),
        (3, 5, 1, "VALID", 1),
    ],
)
def test_output_size_is_that_of_jax(size, window, stride, padding, dilation):
    pads = (
        [(padding, padding)]
        if isinstance(padding, int)
        else [padding]
        if isinstance(padding, tuple)
        else padding
    )
    x, kernel = jnp.zeros((1, size, 1)), jnp.zeros((window, 1, 1))
    numbers = ("NHC", "HIO", "NHC")
    out = jax.eval_shape(
        lambda: jax.lax.conv_general_dilated(
            x, kernel, (stride,), pads, rhs_dilation=(dilation,), dimension_numbers=numbers
        )
    )
    assert (
        receptive_field.output_size(size, window, stride=stride, padding=padding, dilation=dilation)
        == out.shape[1]
    )


def test_output_size_refuses_an_unknown_padding():
    with pytest.raises(ConfigError, match="'same'"):
        receptive_field.output_size(8, 3, padding="same")


def test_closed_form_gives_the_published_receptive_fields():
    """Araujo et al. 2019, table 1: AlexNet 195 and stride 32, VGG-16 212 and stride 32."""
    alexnet = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]
    vgg16 = [step for count in (2, 2, 3, 3, 3) for step in [(3, 1)] * count + [(2, 2)]]
    assert receptive_field.receptive_field(alexnet) == (195, 32)
    assert receptive_field.receptive_field(vgg16) == (212, 32)
    assert receptive_field.receptive_field([(3, 1, 2), (3, 2)]) == (7, 2)


class Mixed(nn.Module):
    """Parameters beside sub-modules, a module called twice, dropout, normalization, two inputs,
    several outputs.
    """

    @nn.compact
    def __call__(self, x, extra, *, train: bool = False):
        scale = self.param("scale", nn.initializers.ones_init(), (1, 1, 1, 4))
        twice = Conv(4, (3, 3), use_bias=False, name="twice")
        x = twice(twice(x))
        x = nn.BatchNorm(use_running_average=not train)(x) * scale
        x = nn.Dropout(0.5, deterministic=not train)(max_pool(x, (2, 2)))
        pooled = jnp.mean(x, axis=(1, 2))
        return {"a": nn.Dense(3, name="head")(pooled), "b": nn.Embed(5, 2)(extra)}


@pytest.mark.parametrize("train", [False, True])
def test_rows_of_an_unusual_model(train):
    model = Mixed()
    inputs = (
        jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32),
        jax.ShapeDtypeStruct((2, 6), jnp.int32),
    )
    layers = summary.summarize_layers(model, inputs, train=train)
    rows = [(layer.kind, layer.shape, layer.params, layer.macs) for layer in layers]
    convolution = 8 * 8 * 9 * 4 * 4
    assert rows == [
        ("Conv", (8, 8, 4), 144, convolution),
        ("Conv", (8, 8, 4), 0, convolution),  # the same weights
        ("BatchNorm", (8, 8, 4), 8, 0),
        ("max_pool", (4, 4, 4), 0, 0),
        ("Dropout", (4, 4, 4), 0, 0),
        ("global_avg_pool", (4,), 0, 0),
        ("Dense", (3,), 15, 12),
        ("Embed", (6, 2), 10, 0),
        ("Mixed", (3,), 4, 0),
    ]
    assert layers[-2].receptive_field == ()  # does not depend on the image


class SeveralRows(nn.Module):
    """Layers with several rows an example: of its parts, and of its mirror image; and one of a
    table that all examples share.
    """

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        parts = x.reshape(-1, 4, *x.shape[2:])  # [2 B, 4, W, C]
        parts = nn.ConvTranspose(3, (2, 2), strides=(2, 2))(Conv(3, (3, 3))(parts))
        both = jnp.concatenate((x, x[:, :, ::-1]))
        table = nn.Dense(2)(self.param("table", nn.initializers.ones_init(), (6, 5)))
        return parts.sum() + FixedFilters(sobel)(both).sum() + table.sum() + x.mean((1, 2, 3))


@pytest.mark.parametrize("rows", [1, 2])
def test_rows_that_a_model_makes_of_an_example_are_its_own(rows):
    x = jax.ShapeDtypeStruct((rows, 8, 6, 2), jnp.float32)
    layers = summary.summarize_layers(SeveralRows(), (x,))
    variables = jax.eval_shape(SeveralRows().init, jax.random.key(0), x)
    with formulation("natural"):
        jaxpr = jax.make_jaxpr(SeveralRows().apply)(variables, x).jaxpr
    assert summary.total_macs(layers) == _multiplications(jaxpr) // rows
    found = {layer.kind: layer.macs for layer in layers}
    assert found["Conv"] == 2 * (4 * 6) * 9 * 2 * 3
    assert found["ConvTranspose"] == 2 * (4 * 6) * 4 * 3 * 3
    assert found["FixedFilters"] == 2 * (8 * 6) * 9 * 2 * 2
    assert found["Dense"] == 6 * 5 * 2 // rows


def test_masks_count_for_each_object_and_mirror_images_for_themselves():
    image = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)

    def of_masks(objects: int) -> int:
        boxes = jax.ShapeDtypeStruct((1, objects, 4), jnp.float32)
        model = CenterMaskNet(10, max_objects=objects)
        layers = summary.summarize_layers(model, (image, boxes))
        return sum(layer.macs for layer in layers if layer.name.startswith("mask_head/"))

    assert of_masks(7) == 7 * of_masks(1) > 0
    plain = SpeedNet(widths=(8, 8, 8))
    once, twice = (
        summary.total_macs(summary.summarize_layers(model, (image,)))
        for model in (plain, MirrorAveraged(plain))
    )
    assert twice == 2 * once
    trained = summary.summarize_layers(MirrorAveraged(plain), (image,), train=True)
    assert summary.total_macs(trained) == once


class Recurrent(nn.Module):
    """One dense layer run over five steps."""

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        def body(layer, carry, step):
            return carry, layer(step)

        scan = nn.scan(
            body, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        return scan(nn.Dense(3, name="cell"), (), x)[1]


def test_a_scanned_layer_multiplies_at_every_step():
    layers = _layers(Recurrent(), (5, 7))
    assert (summary.total_params(layers), summary.total_macs(layers)) == (24, 5 * 7 * 3)


class Stacked(nn.Module):
    """A dense layer applied several times, each time with weights of its own or with the same."""

    over: str  # "scan" or "vmap"
    own: bool
    by_name: bool = False  # whether the layer is handed its input by name

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        def step(layer, carry, given):
            return layer(inputs=carry) if self.by_name else layer(carry), given

        split = {"params": self.own}
        layer, axes = nn.Dense(7, name="cell"), {"params": 0} if self.own else {}
        if self.over == "scan":
            shared = {} if self.own else {"variable_broadcast": "params"}
            scan = nn.scan(step, variable_axes=axes, split_rngs=split, length=3, **shared)
            return scan(layer, x, None)[0]
        every = nn.vmap(
            lambda layer, x: layer(inputs=x) if self.by_name else layer(x),
            variable_axes=axes or {"params": None},
            split_rngs=split,
        )
        return every(layer, jnp.stack([x] * 3)).mean(0)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("over", ["scan", "vmap"])
@pytest.mark.parametrize("rows", [1, 4])
def test_each_of_a_stack_of_layers_multiplies_once(over, own, by_name, rows):
    image = jax.ShapeDtypeStruct((rows, 7), jnp.float32)
    layers = summary.summarize_layers(Stacked(over, own, by_name), (image,))
    assert summary.total_params(layers) == (3 if own else 1) * (7 * 7 + 7)
    assert summary.total_macs(layers) == 3 * 7 * 7


class Either(nn.Module):
    """Of two convolutions one, by a number; or, to compare with, one of them or their sum."""

    windows: tuple[int, int]
    way: str = "cond"  # "0", "1", "sum", "seeing" (the number is of the image)

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        first, second = (
            Conv(3, (window, 2 * window - 1), name=f"conv{i}")
            for i, window in enumerate(self.windows)
        )
        if self.way == "sum":
            x = first(x) + second(x)
        elif self.way in ("0", "1"):
            x = (first, second)[int(self.way)](x)
        else:
            number = (
                x.mean()
                if self.way == "seeing"
                else self.param("number", nn.initializers.zeros, ())
            )
            if self.is_initializing():
                first(x), second(x)
            x = nn.switch(
                (number > 0).astype(jnp.int32),
                [lambda m, x: first(x), lambda m, x: second(x)],
                self,
                x,
            )
        return Conv(2, (3, 3), (2, 2), name="after")(x)


@pytest.mark.parametrize("windows", [(3, 5), (5, 3), (1, 1)])
def test_a_choice_of_branches_sees_what_any_does_and_multiplies_what_the_larger_does(windows):
    shape = (32, 32, 2)
    chosen, summed = (_layers(Either(windows, way), shape) for way in ("cond", "sum"))

    def after(layers):
        (found,) = (layer for layer in layers if layer.name == "after")
        return found.receptive_field, found.stride

    assert after(chosen) == after(summed)
    alone = [_layers(Either(windows, way), shape) for way in "01"]
    assert summary.total_macs(chosen) == max(map(summary.total_macs, alone))
    assert summary.total_params(chosen) == summary.total_params(summed) + 1  # the number
    seeing = after(_layers(Either(windows, "seeing"), shape))[0]
    assert all(field >= size for field, size in zip(seeing, (32, 32), strict=True))


def test_json_and_table_hold_every_layer():
    layers = _layers(build("rgb_digit_net")[0], (32, 32, 3))
    tree = json.loads(json.dumps(summary.as_json(layers)))
    assert (tree["params"], tree["macs"]) == (62_006, 651_720)
    assert list(tree["layers"][0]) == [
        "name",
        "kind",
        "shape",
        "activations",
        "params",
        "macs",
        "receptive_field",
        "stride",
    ]
    assert sum(row["params"] for row in tree["layers"]) == tree["params"]
    lines = summary.format_table(layers).splitlines()
    assert len(lines) == len(layers) + 4
    assert "4,704" in lines[2]
    assert "62,006" in lines[-1]
    columns = [lines[0].index("output")] + [
        line.index(text) for line, text in ((lines[2], "28x28x6"), (lines[3], "14x14x6"))
    ]
    assert len(set(columns)) == 1
