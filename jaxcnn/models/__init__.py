"""The models that the command line knows by name. A model needs no entry here: an experiment
imports its class.
"""

from typing import Any

from jaxcnn.errors import ConfigError, did_you_mean

_IMAGE = (224, 224, 3)
_FAMILIES = {
    "alexnet": ("alexnet_torchvision",),
    "vgg": ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    "googlenet": ("googlenet", "googlenet_bn"),
    "resnet": (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        *("wide_resnet50_2", "resnext50_32x4d", "seresnet50", "resnetv2_50"),
    ),
    "densenet": ("densenet121", "densenet161", "densenet169", "densenet201"),
    "mobilenet": ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    "convnext": ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
}
_SIDES = (224, 240, 260, 300, 380, 456, 528, 600)  # of EfficientNet-B0 to B7 (Tan and Le 2019)

# name: (module of jaxcnn.models, class or constructor, shape of one input). Nothing is imported
# before `build`.
MODELS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "sigmoid_mlp": ("mlp", "MLP", (2,)),
    "lenet5": ("lenet", "LeNet5", (28, 28, 1)),
    "lenet5_modern": ("lenet", "LeNet5Modern", (28, 28, 1)),
    "rgb_digit_net": ("lenet", "RGBDigitNet", (32, 32, 3)),
    "fashion_cnn": ("fashion", "FashionCNN", (28, 28, 1)),
    "alexnet": ("alexnet", "alexnet", (227, 227, 3)),
    "alexnet_ungrouped": ("alexnet", "alexnet_ungrouped", (227, 227, 3)),
    **{name: (family, name, _IMAGE) for family, names in _FAMILIES.items() for name in names},
    "inception_v3": ("inception", "inception_v3", (299, 299, 3)),
    **{
        f"efficientnet_b{i}": ("efficientnet", f"efficientnet_b{i}", (side, side, 3))
        for i, side in enumerate(_SIDES)
    },
    "resnet_cifar": ("resnet", "resnet_cifar", (32, 32, 3)),
    "wide_resnet28_10": ("resnet", "wide_resnet28_10", (32, 32, 3)),
    "densenet_cifar": ("densenet", "densenet_cifar", (32, 32, 3)),
    "speednet": ("speed", "speednet", (32, 32, 3)),
    "unet": ("unet", "unet", (576, 576, 1)),
    "text_cnn": ("text", "TextCNN", (64,)),
    "char_cnn": ("text", "CharCNN", (1014,)),
    "fcn_1d": ("signals", "FCN", (256, 1)),
    "resnet_1d": ("signals", "ResNet1D", (256, 1)),
    "c3d": ("video", "C3D", (16, 112, 112, 3)),
    "r3d_18": ("video", "r3d_18", (16, 112, 112, 3)),
    "r2plus1d_18": ("video", "r2plus1d_18", (16, 112, 112, 3)),
    "small_video_net": ("video", "SmallVideoNet", (8, 32, 32, 1)),
}
TOKEN_MODELS = ("text_cnn", "char_cnn")  # their inputs are token numbers (int32), not pixels


def build(name: str, **fields: Any) -> tuple[Any, tuple[int, ...]]:
    """The model of that name with these fields (all others at their defaults), and the shape
    [*spatial, C] of one input.
    """
    from importlib import import_module

    if name not in MODELS:
        raise ConfigError(
            f"model {name!r} is unknown{did_you_mean(name, MODELS)}; there are {', '.join(MODELS)}"
        )
    module, attribute, input_shape = MODELS[name]
    return getattr(import_module(f"jaxcnn.models.{module}"), attribute)(**fields), input_shape
