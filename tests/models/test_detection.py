"""Networks that draw boxes and masks: shapes, gradients, what may and what must not change their
outputs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.models.detection import FCOS, CenterNet, TopDown, center_net_resnet18, small_center_net
from jaxcnn.models.instances import CenterMaskNet, MaskHead
from jaxcnn.models.localization import BackboneLocalization, LocalizationHead, LocalizationNet
from jaxcnn.models.resnet import BasicBlock, ResNet

KEY = jax.random.key(0)
BOXES = jnp.asarray(
    [[[0.1, 0.2, 0.6, 0.7], [0.5, 0.5, 0.9, 0.8]], [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]
)
# strides 4, 8, 16
TINY_RESNET = ResNet((1, 1, 1), BasicBlock, 0, (4, 6, 8), stem_width=4, pyramid=True)

CENTERS = {"heatmap": (8, 12, 3), "size": (8, 12, 2), "offset": (8, 12, 2)}
CASES = {
    "localization": (LocalizationNet(3, (4, 4, 6, 8)), 1, {"logits": (3,), "box": (4,)}),
    "localization resnet": (BackboneLocalization(3, TINY_RESNET), 1, {"logits": (3,), "box": (4,)}),
    "centers": (small_center_net(num_classes=3), 1, CENTERS),
    "centers resnet": (
        CenterNet(3, TINY_RESNET, stride4=0, features=8, head_features=8),
        1,
        CENTERS,
    ),
    "dense": (
        FCOS(3, features=8),
        1,
        {"logits": (120, 3), "distances": (120, 4), "centerness": (120,)},
    ),
    "instances": (
        CenterMaskNet(3, max_objects=5, features=8, head_features=8),
        2,
        CENTERS | {"masks": (5, 28, 28)},
    ),
    "instances resnet": (
        CenterMaskNet(3, 5, TINY_RESNET, stride4=0, features=8),
        2,
        CENTERS | {"masks": (5, 28, 28)},
    ),
}


def run(model, variables, *inputs, **options) -> Any:
    return model.apply(variables, *inputs, **options)


def params_of(model, *inputs) -> Any:
    return model.init(KEY, *inputs)["params"]


def images(count=2, size=(32, 48), channels=3):
    return jax.random.uniform(jax.random.key(1), (count, *size, channels))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith(" resnet") else ())
        for name in CASES
    ],
)
def test_shapes_gradients_and_bfloat16(name):
    model, num_inputs, expected = CASES[name]
    inputs = (images(), BOXES)[:num_inputs]
    variables = jax.jit(lambda *inputs: model.init(KEY, *inputs, train=False))(*inputs)
    outputs = jax.jit(lambda v, *inputs: run(model, v, *inputs, train=False))(variables, *inputs)
    assert {name: value.shape for name, value in outputs.items()} == {
        name: (2, *shape) for name, shape in expected.items()
    }

    def loss(params):
        outputs, _ = run(
            model, {**variables, "params": params}, *inputs, train=True, mutable=["batch_stats"]
        )
        return sum(jnp.sum(jnp.square(value - 1)) for value in outputs.values())

    gradient = jax.device_get(jax.jit(jax.grad(loss))(variables["params"]))
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path
    half = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), (variables["params"], inputs)
    )
    with jax.numpy_dtype_promotion("standard"):  # the statistics of BatchNorm stay float32
        low = jax.eval_shape(
            lambda p, i: run(model, {**variables, "params": p}, *i, train=False), *half
        )
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(low))


@pytest.mark.parametrize(
    "model, inputs, expected",
    [
        (LocalizationNet(10), 1, 149_018),
        (small_center_net(num_classes=10), 1, 172_606),
        (CenterMaskNet(10), 2, 200_207),
    ],
)
def test_parameters_as_their_docstrings_say(model, inputs, expected):
    shapes = jax.eval_shape(
        lambda: model.init(KEY, *(images(1, (64, 64), 1), BOXES[:1])[:inputs], train=False)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == expected


def test_resnet18_detector_stands_on_stride_4():
    image = jax.ShapeDtypeStruct((1, 128, 96, 3), jnp.float32)
    model = center_net_resnet18(num_classes=20)
    outputs, variables = jax.eval_shape(
        lambda image: model.init_with_output(KEY, image, train=False), image
    )
    assert outputs["heatmap"].shape == (1, 32, 24, 20)
    # the trunk alone has 11.2 M
    assert 11e6 < sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) < 12.5e6


def test_a_new_detector_says_one_in_ten_everywhere():
    model = small_center_net(num_classes=3)
    outputs = run(model, model.init(KEY, images(), train=False), images(), train=False)
    np.testing.assert_allclose(jax.nn.sigmoid(outputs["heatmap"]), 0.1, atol=0.02)


def test_the_path_upwards_doubles_and_adds():
    """With identity convolutions the finest level is the sum of all, each cell repeated, then the
    3x3 one.
    """
    maps = tuple(
        jax.random.normal(jax.random.key(i), (1, 4 * 2**i, 2 * 2**i, 3)) for i in (2, 1, 0)
    )
    module = TopDown(3, 3)
    variables = module.init(KEY, maps, train=False)
    identity = jnp.eye(3)[None, None]
    params = dict(variables["params"])
    for level in range(3):
        params[f"lateral{level}"] = {"kernel": identity}
        middle = jnp.zeros((3, 3, 3, 3)).at[1, 1].set(jnp.eye(3))
        params[f"smooth{level}"] = {
            "conv": {"kernel": middle},
            "norm": params[f"smooth{level}"]["norm"],
        }
    levels = run(module, {**variables, "params": params}, maps, train=False)
    total = np.zeros((1, 1, 1, 3))
    for level, own in zip(levels[::-1], maps[::-1], strict=True):
        total = total.repeat(own.shape[1] // total.shape[1], axis=1).repeat(
            own.shape[2] // total.shape[2], axis=2
        ) + np.asarray(own)
        np.testing.assert_allclose(level, np.maximum(total, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(36, 48), (32, 44)], ids=str)
def test_sizes_that_do_not_halve_are_refused(size):
    with pytest.raises(ConfigError, match="multiples of the coarsest stride"):
        small_center_net(num_classes=3).init(KEY, images(size=size), train=False)
    with pytest.raises(ConfigError, match="images \\[B, H, W, C\\]"):
        small_center_net(num_classes=3).init(KEY, images(size=size)[0], train=False)


# ---- the box of localization


def test_the_localized_box_reaches_the_border_and_moves_with_the_peaks():
    features = np.zeros((2, 5, 9, 3), np.float32)
    features[0, 0, 0, 0] = features[0, 4, 8, 1] = 60  # the outermost cells: the whole image
    features[1, 3, 6, 0] = features[1, 1, 2, 1] = 60  # corners in the wrong order are put right
    head = LocalizationHead(2)
    params = params_of(head, jnp.asarray(features))
    params = params | {"maps": {"kernel": jnp.eye(3)[None, None]}}
    box = run(head, {"params": params}, jnp.asarray(features))["box"]
    np.testing.assert_allclose(box, [[0, 0, 1, 1], [1 / 4, 2 / 8, 3 / 4, 6 / 8]], atol=1e-5)


def test_the_class_is_read_where_the_third_map_points():
    features = jax.random.normal(KEY, (1, 4, 4, 6))
    head = LocalizationHead(5)
    params = params_of(head, features)
    kernel = jnp.zeros((1, 1, 6, 3)).at[0, 0, 0, 2].set(1.0)
    features = features.at[0, 2, 1, 0].set(500.0)
    logits = run(head, {"params": params | {"maps": {"kernel": kernel}}}, features)["logits"]
    np.testing.assert_allclose(
        logits[0], features[0, 2, 1] @ params["classes"]["kernel"], rtol=1e-4
    )


# ---- masks


def test_in_evaluation_the_given_boxes_change_nothing_and_in_training_only_the_masks():
    model, image = CASES["instances"][0], images()
    variables = model.init(KEY, image, BOXES, train=False)
    for boxes in (jnp.zeros_like(BOXES), 1 - BOXES[..., ::-1]):
        ours, given = (run(model, variables, image, b, train=False) for b in (boxes, BOXES))
        for name in given:
            np.testing.assert_array_equal(ours[name], given[name])
        ours, given = (
            run(model, variables, image, b, train=True, mutable=["batch_stats"])[0]
            for b in (boxes, BOXES)
        )
        for name in ("heatmap", "size", "offset"):
            np.testing.assert_array_equal(ours[name], given[name])
        assert np.abs(ours["truth_masks"] - given["truth_masks"]).max() > 1e-3
        assert "masks" not in given


def test_masks_of_training_and_evaluation_come_from_the_same_network():
    """Fed in training what evaluation finds by itself, the network draws the same masks (with the
    same statistics of normalization).
    """
    from jaxcnn.ops.centers import decode_centers

    model, image = CASES["instances"][0], images()
    variables = model.init(KEY, image, BOXES, train=False)
    outputs = run(model, variables, image, BOXES, train=False)
    own = decode_centers(outputs["heatmap"], outputs["size"], outputs["offset"], num_objects=5)[0]
    trained = run(model, variables, image, own, train=True, mutable=["batch_stats"])[0]
    assert trained["truth_masks"].shape == outputs["masks"].shape
    assert np.all(np.isfinite(trained["truth_masks"]))


def test_the_mask_head_equals_torch():
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1, 14, 14, 3)).astype(np.float32)
    head = MaskHead(features=4, depth=1)
    box = jnp.asarray([[[0.0, 0.0, 1.0, 1.0]]])
    params = head.init(KEY, jnp.asarray(features), box)["params"]
    p = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)), params)

    def conv(x, name):
        kernel = p[name]["kernel"].permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(x, kernel, p[name]["bias"], padding=kernel.shape[-1] // 2)

    x = torch.tensor(features).permute(0, 3, 1, 2)
    up = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    # RoIAlign of the whole map: the mean of 2x2 bilinear samples a cell
    x = torch.nn.functional.avg_pool2d(up, 2)
    x = torch.relu(conv(x, "conv1"))
    # A transposed convolution 2x2 of stride 2, its kernel [in, out, 2, 2] cut from the 1x1 one by
    # the order of the pixel shuffle.
    kernel = p["up"]["kernel"][0, 0].reshape(4, 4, 2, 2)
    x = torch.nn.functional.conv_transpose2d(x, kernel, stride=2) + p["up"]["bias"].reshape(
        4, 2, 2
    ).repeat(1, 14, 14)
    theirs = conv(torch.relu(x), "mask")[:, 0]
    np.testing.assert_allclose(
        run(head, {"params": params}, jnp.asarray(features), box)[0], theirs.numpy(), atol=1e-5
    )
