"""The models that the command line knows by name. A model needs no entry here: an experiment imports its class."""

from typing import Any

from jaxcnn.errors import ConfigError, did_you_mean

# name: (module, class, shape of one input). `build` imports the module, so importing this package imports no model.
MODELS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "sigmoid_mlp": ("jaxcnn.models.mlp", "MLP", (2,)),
    "lenet5": ("jaxcnn.models.lenet", "LeNet5", (28, 28, 1)),
    "lenet5_modern": ("jaxcnn.models.lenet", "LeNet5Modern", (28, 28, 1)),
    "rgb_digit_net": ("jaxcnn.models.lenet", "RGBDigitNet", (32, 32, 3)),
    "fashion_cnn": ("jaxcnn.models.fashion", "FashionCNN", (28, 28, 1)),
}


def build(name: str, **fields: Any) -> tuple[Any, tuple[int, ...]]:
    """The model of that name with these fields (all others at their defaults), and the shape [*spatial, C] of one input."""
    from importlib import import_module

    if name not in MODELS:
        raise ConfigError(f"model {name!r} is unknown{did_you_mean(name, MODELS)}; there are {', '.join(MODELS)}")
    module, attribute, input_shape = MODELS[name]
    return getattr(import_module(module), attribute)(**fields), input_shape
