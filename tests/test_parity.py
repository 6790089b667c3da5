"""Our networks give the numbers of torchvision and timm: random weights and BatchNorm statistics copied, the same logits.

Nothing is downloaded: the peers are built without trained weights.
"""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import weights
from jaxcnn.models import alexnet, resnet, vgg
from jaxcnn.weights_rules import rules_for

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")

SMALL = {"num_classes": 10}
HIDDEN = 32  # width of VGG's and AlexNet's hidden dense layers here, instead of 4096

# name, package of the peer, its constructor's arguments, our module, image size, whether gradients are compared as well
PARITY = [
    ("resnet18", "torchvision", SMALL, resnet.resnet18(10), 64, True),
    ("resnext50_32x4d", "torchvision", SMALL, resnet.resnext50_32x4d(10), 64, False),
    ("seresnet18", "timm", SMALL, resnet.resnet18(10, squeeze_ratio=1 / 16), 64, False),
    ("resnetv2_18", "timm", SMALL, resnet.ResNet((2, 2, 2, 2), resnet.PreActBlock, 10), 64, True),
    ("resnetv2_50", "timm", SMALL, resnet.resnetv2_50(10), 64, False),
    ("vgg11", "torchvision", SMALL, vgg.vgg11(10, hidden=HIDDEN), 48, False),
    ("vgg11_bn", "torchvision", SMALL, vgg.vgg11_bn(10, hidden=HIDDEN), 64, True),
    pytest.param("vgg16", "timm", SMALL, vgg.vgg16(10), 224, False, marks=pytest.mark.slow),
    ("alexnet", "torchvision", SMALL, alexnet.alexnet_torchvision(10, hidden=HIDDEN), 127, True),
]


@pytest.fixture(scope="session")
def peers():
    """Constructors of torchvision and timm models by package name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchvision = _import_torchvision()
        timm = pytest.importorskip("timm", reason="needs timm: pip install --no-deps timm")
    return {"torchvision": torchvision.models.get_model, "timm": timm.create_model}


def _import_torchvision():
    """torchvision; one built for CUDA lacks two operators beside a CPU build of torch, and loads once they are declared."""
    try:
        return pytest.importorskip("torchvision", reason="needs torchvision: pip install --no-deps torchvision")
    except RuntimeError:
        for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision

        torchvision.declared_operators = library  # they last as long as this reference
        return torchvision


def narrow(peer) -> None:
    """Make torchvision's hidden dense layers of 4096 units as narrow as ours."""
    classifier = getattr(peer, "classifier", None)
    layers = [layer for layer in classifier if isinstance(layer, torch.nn.Linear)] if isinstance(classifier, torch.nn.Sequential) else []
    if len(layers) == 3:
        widths = [layers[0].in_features, HIDDEN, HIDDEN, layers[-1].out_features]
        for layer, inputs, outputs in zip(layers, widths[:-1], widths[1:], strict=True):
            layer.__init__(inputs, outputs)


def randomize(peer, image, seed: int) -> None:
    """Random weights that keep activations near 1, random biases and scales, and BatchNorm statistics near those of `image`."""
    generator = torch.Generator().manual_seed(seed)
    norms = []
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if parameter.ndim > 1 and "layer_scale" not in name:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for module in peer.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = 1.0  # the statistics become those of this batch
                norms.append(module)
        peer.train()
        peer(image)
        for norm in norms:
            norm.running_var.clamp_(min=0.05).mul_(torch.empty_like(norm.running_var).uniform_(0.7, 1.4, generator=generator))
            norm.running_mean.add_(0.2 * norm.running_var.sqrt() * torch.empty_like(norm.running_var).normal_(generator=generator))
        head = [parameter for parameter in peer.parameters() if parameter.ndim > 1][-1]
        head.div_(peer.eval()(image).std())  # logits near 1, so that an absolute tolerance means the same for all


@pytest.mark.parametrize(
    "name, package, arguments, model, size, gradients", PARITY, ids=lambda value: value if isinstance(value, str) else ""
)
def test_same_logits_and_gradients(peers, name, package, arguments, model, size, gradients):
    image = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    theirs_in = torch.from_numpy(image.transpose(0, 3, 1, 2)).contiguous()
    with warnings.catch_warnings(), torch.device("meta" if package == "torchvision" else "cpu"):  # meta: no time spent on initial values
        warnings.simplefilter("ignore")
        peer = peers[package](name, **arguments)
        narrow(peer)
    peer.to_empty(device="cpu") if package == "torchvision" else peer
    randomize(peer, theirs_in, seed=1)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(image.shape), train=False))
    params, state = (jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), tree) for tree in (shapes.pop("params"), shapes))
    params, state, report = weights.load_weights(params, state, peer.state_dict(), rules_for(model))
    assert not report.unmatched
    assert not report.unused

    direction = np.random.default_rng(2).normal(size=(2, arguments["num_classes"])).astype(np.float32)

    def loss(params):
        logits = model.apply({"params": params, **state}, image, train=False)
        return jnp.sum(logits * direction), logits

    theirs = peer(theirs_in)
    if gradients:
        ours, gradient = jax.jit(jax.grad(loss, has_aux=True))(params)[::-1]
    else:
        ours, gradient = jax.jit(loss)(params)[1], None
    expected = theirs.detach().numpy()
    assert 0.1 < expected.std() < 10, "the comparison would be empty"
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    if gradients:
        (theirs * torch.from_numpy(direction)).sum().backward()
        peer_gradients = {key: parameter.grad for key, parameter in peer.named_parameters()}
        expected_tree, _, _ = weights.load_weights(params, state, peer_gradients, rules_for(model))
        for path, leaf in weights.flatten(expected_tree).items():
            difference = np.linalg.norm(weights.flatten(gradient)[path] - leaf) / np.linalg.norm(leaf)
            assert difference < 1e-4, f"{path}: relative difference {difference:.1e}"
