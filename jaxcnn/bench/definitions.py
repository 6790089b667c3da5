"""Which definition of a network a peer takes: torchvision's or timm's own where there is one, else
a list of layers (jaxcnn.bench.networks); and why some networks have neither.
"""

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxcnn import models
from jaxcnn.bench.networks import FAMILIES, layers_of
from jaxcnn.errors import ConfigError, DependencyError

Network = dict[str, Any]  # {"layers"} or {"package", "name", "arguments"}


class Definition(NamedTuple):
    """A constructor of another package, its arguments, and the fields under which ours is that
    network.
    """

    package: str
    name: str
    arguments: Mapping[str, Any] = MappingProxyType({})
    fields: Mapping[str, Any] = MappingProxyType({})


NO_AUXILIARY = {"aux_logits": False, "init_weights": False}
_SAME_NAME = (
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "resnext50_32x4d"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"efficientnet_b{i}" for i in range(8)),
    *("r3d_18", "r2plus1d_18"),
)
# name in jaxcnn.models: the same network elsewhere; tests/models/test_parity.py compares outputs
DEFINITIONS: dict[str, Definition] = {
    "alexnet_torchvision": Definition("torchvision", "alexnet"),
    "googlenet_bn": Definition("torchvision", "googlenet", {**NO_AUXILIARY, "dropout": 0.4}),
    "inception_v3": Definition(
        "torchvision", "inception_v3", NO_AUXILIARY, {"auxiliary_head": False}
    ),
    "seresnet50": Definition("timm", "seresnet50"),
    "resnetv2_50": Definition("timm", "resnetv2_50"),
    **{
        f"convnext_{size}": Definition(
            "torchvision", f"convnext_{size}", {"stochastic_depth_prob": 0.0}
        )
        for size in ("tiny", "small", "base", "large")
    },
    **{name: Definition("torchvision", name) for name in _SAME_NAME},
}
# name in jaxcnn.models: why no peer has it
WITHOUT: dict[str, str] = {
    "lenet5": "its trained subsampling, partial connections and radial outputs of 1998 are in no "
    "common package; bench lenet5_modern",
    "speednet": "its whitening layer and its scaled head are in no common package",
    "text_cnn": "takes tokens, not images",
    "char_cnn": "takes tokens, not images",
    "googlenet": "its auxiliary heads are not compared; give model.auxiliary_heads=False",
}


def network_of(model: Any, peer: str) -> Network:
    """The definition of a model for "torch" or "keras".

    Errors: ConfigError where there is none, with the reason; DependencyError where the package that
    has it is not installed.
    """
    definition = definition_of(model) if peer == "torch" else None
    if definition and importlib.util.find_spec(definition.package):
        package, name, arguments, _ = definition
        return {"package": package, "name": name, "arguments": dict(arguments)}
    if isinstance(model, tuple(FAMILIES)):
        try:
            return {"layers": layers_of(model)}
        except ConfigError:
            if not definition:
                raise
    if definition:
        package = definition.package
        raise DependencyError(
            f"--peer torch: {type(model).__name__} is compared with the definition of {package}, "
            f"which is not installed; pip install --no-deps {package}"
        )
    raise ConfigError(f"--peer {peer}: {type(model).__name__} has no counterpart: {_why(model)}")


def definition_of(model: Any) -> Definition | None:
    """The definition of torchvision or timm that a model is, whatever its number of classes; None
    for a model with other fields.
    """
    if getattr(model, "num_classes", 0) < 1:
        return None
    for name, definition in DEFINITIONS.items():
        if _named(model, name):
            fields = {"num_classes": model.num_classes, **definition.fields}
            if models.build(name, **fields)[0] == model:
                return definition
    return None


def _named(model: Any, name: str) -> bool:
    """Whether `name` is of the file that the model's class is of."""
    return type(model).__module__ == f"jaxcnn.models.{models.MODELS[name][0]}"


def _why(model: Any) -> str:
    for name, reason in WITHOUT.items():
        if _named(model, name) and type(models.build(name)[0]) is type(model):
            return reason
    same = [name for name in DEFINITIONS if _named(model, name)]
    if same:
        return f"it has other fields than {', '.join(same)}, which torchvision and timm define"
    names = ", ".join(kind.__name__ for kind in FAMILIES)
    return f"neither torchvision nor timm defines it, and there is no list of layers as for {names}"
