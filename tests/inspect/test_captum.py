"""The attributions of captum on the same ResNet-18: random weights and BatchNorm statistics copied,
the same maps. Runs where captum is installed (`make test-parity`).

N. Kokhlikyan et al., "Captum: a unified and generic model interpretability library for PyTorch",
2020.
"""

import copy
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.inspect import attribution, class_activation
from jaxcnn.models.resnet import resnet18

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    captum = pytest.importorskip("captum.attr", reason="needs captum: pip install --no-deps captum")

from tests.models.test_parity import Row, peer_and_ours  # noqa: E402
from tests.torchvision_peer import import_torchvision  # noqa: E402

TOLERANCE = 1e-4  # of the largest value
# of captum: that it asks for gradients of its input, and of hooks on layers that write in place
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ROW = Row("torchvision", "resnet18", resnet18(num_classes=10), 64)
# ours -> theirs
LAYERS = {"stage2_block1": "layer2", "stage4_block1": "layer4"}


@pytest.fixture(scope="module")
def both():
    """(their model, our explanations, pictures [2, H, W, C], theirs, target): of the class that
    their model finds in the first picture.
    """
    peers = {"torchvision": import_torchvision().models.get_model}
    logits, peer, params, state, images = peer_and_ours(peers, ROW, "float32")
    target = int(logits[0].argmax())

    def explain(function, images):
        """`function(score, images)`, compiled with the weights as an argument."""

        def explained(variables, x):
            weights = jax.tree.map(lambda w: w.astype(x.dtype), variables)
            return function(lambda x: ROW.model.apply(weights, x, train=False)[:, target], x)

        return jax.jit(explained)({"params": params, **state}, images)

    theirs = torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous()
    return peer.eval(), explain, jnp.asarray(images), theirs, target


def check(ours, theirs, name):
    """Equal to 1e-4 of the largest value, which is also said."""
    theirs = theirs.detach().numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if np.ndim(ours) == 4 else theirs[:, 0]
    largest = np.abs(theirs).max()
    assert largest > 1e-3, "the comparison would be empty"
    print(f"{name}: largest {largest:.3g}, difference {np.abs(ours - theirs).max():.1e}")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * largest)


def test_gradient(both):
    peer, explain, images, theirs, target = both
    expected = captum.Saliency(peer).attribute(theirs, target=target, abs=False)
    check(explain(attribution.gradient, images), expected, "gradient")


def test_integrated_gradients(both):
    """In float64: of twenty points on the way some pixel's lies so near a kink (a ReLU, a max
    pooling) that in float32 rounding alone decides on which side.
    """
    peer, explain, images, theirs, target = both
    expected = captum.IntegratedGradients(copy.deepcopy(peer).double()).attribute(
        theirs.double(), baselines=0.5, target=target, n_steps=20
    )
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        found = explain(
            partial(attribution.integrated_gradients, baseline=0.5, steps=20),
            np.asarray(images, np.float64),
        )
        assert found.dtype == jnp.float64
        check(np.asarray(found), expected, "integrated gradients")


def test_smooth_grad(both):
    """Of captum's Saliency the mean over the noise that was drawn here: the two libraries draw
    other numbers. In float64, as integrated gradients are and for the same reason.
    """
    peer, explain, images, theirs, target = both
    peer, total = copy.deepcopy(peer).double(), 0
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        key, images = jax.random.key(0), np.asarray(images, np.float64)
        for i in range(4):
            noise = 0.2 * jax.random.normal(jax.random.fold_in(key, i), images.shape)
            assert noise.dtype == jnp.float64
            noisy = theirs.double() + torch.from_numpy(np.array(noise).transpose(0, 3, 1, 2))
            total = total + captum.Saliency(peer).attribute(noisy, target=target, abs=False)
        smooth = partial(attribution.smooth_grad, key, sigma=0.2, samples=4)
        check(np.asarray(explain(smooth, images)), total / 4, "SmoothGrad")


def test_occlusion(both):
    window, stride = (20, 16), (16, 10)
    peer, explain, images, theirs, target = both
    expected = captum.Occlusion(peer).attribute(
        theirs,
        sliding_window_shapes=(3, *window),
        strides=(3, *stride),
        baselines=0.5,
        target=target,
    )
    found = explain(partial(attribution.occlusion, window=window, stride=stride, value=0.5), images)
    check(found, expected[:, :1], "occlusion")
    assert (expected[:, :1] == expected[:, 1:2]).all(), "all channels are covered at once"


@pytest.mark.parametrize("layer", LAYERS)
def test_grad_cam(both, layer):
    peer, explain, images, theirs, target = both
    raw = captum.LayerGradCam(peer, getattr(peer, LAYERS[layer])).attribute(
        theirs, target=target, relu_attributions=True
    )
    expected = captum.LayerAttribution.interpolate(raw, (64, 64), interpolate_mode="bilinear")
    found = explain(partial(class_activation.grad_cam, layer=layer), images)
    check(found, expected, f"Grad-CAM {layer}")


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_cam(both, layer):
    """captum has no LayerCAM; it is made here of its layer's activation and gradient."""
    peer, explain, images, theirs, target = both
    module = getattr(peer, LAYERS[layer])
    output = captum.LayerActivation(peer, module).attribute(theirs)
    product = captum.LayerGradientXActivation(peer, module).attribute(theirs, target=target)
    # what of the gradient is positive, times the activation, which is at least 0 behind a ReLU
    expected = torch.relu(torch.where(output > 0, product.clamp(min=0), 0).sum(1, keepdim=True))
    expected = captum.LayerAttribution.interpolate(expected, (64, 64), interpolate_mode="bilinear")
    found = explain(partial(class_activation.layer_cam, layer=layer), images)
    check(found, expected, f"LayerCAM {layer}")
