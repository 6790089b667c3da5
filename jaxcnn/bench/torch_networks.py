"""A network in PyTorch: from a list of layers (jaxcnn.bench.networks), or as torchvision or timm
define it. Imports nothing of jaxcnn.
"""

# PyTorch is installed by those alone who compare with it.
# pyright: reportMissingImports=false

import warnings
from typing import Any


def torch_model(network: dict[str, Any], shape: tuple[int, ...], num_classes: int) -> Any:
    """The module of {"layers"} or of {"package", "name", "arguments"} for images [*spatial, C], in
    training mode; channels first; all its parameters made.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazy modules are said to be new
        model = (
            torch_network(network["layers"], len(shape) - 1)
            if "layers" in network
            else defined(num_classes=num_classes, **network)
        )
    with torch.no_grad():
        model.eval()(torch.zeros(1, shape[-1], *shape[:-1]))  # lazy modules learn their sizes
    return model.train()


def defined(*, package: str, name: str, arguments: dict[str, Any], num_classes: int) -> Any:
    """A network of torchvision or timm by name, with random weights."""
    if package == "timm":
        import timm

        return timm.create_model(name, num_classes=num_classes, **arguments)
    return import_torchvision().models.get_model(name, num_classes=num_classes, **arguments)


def import_torchvision() -> Any:
    """torchvision. One built for CUDA lacks two operators beside a CPU build of torch, and loads
    once they are declared.
    """
    import sys

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision
        except RuntimeError:
            for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[module]
            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            import torchvision

            torchvision.declared_operators = library  # they last as long as this reference
    return torchvision


def torch_network(layers: list, rank: int) -> Any:
    """The module of these layers for maps of `rank` spatial axes; channels first; sizes are filled
    in by its first call.
    """
    import torch
    from torch import nn

    class Branches(nn.Module):
        """Branches of one input, added or concatenated."""

        def __init__(self, kind: str, branches: list):
            super().__init__()
            self.kind, self.branches = (
                kind,
                nn.ModuleList(torch_network(branch, rank) for branch in branches),
            )

        def forward(self, x):
            results = [branch(x) for branch in self.branches]
            return results[0] + results[1] if self.kind == "sum" else torch.cat(results, 1)

    class ChannelsLast(nn.Module):
        """Layers applied to a map of which the channels are the last axis for a while."""

        def __init__(self, inner: list):
            super().__init__()
            self.inner = torch_network(inner, rank)

        def forward(self, x):
            return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Scale(nn.Module):
        """A learned factor for each element of the last axis."""

        def __init__(self, channels: int):
            super().__init__()
            self.weight = nn.Parameter(torch.full((channels,), 1e-6))

        def forward(self, x):
            return x * self.weight

    class DropPath(nn.Module):
        """In training, all of a row dropped or kept."""

        def __init__(self, rate: float):
            super().__init__()
            self.rate = rate

        def forward(self, x):
            if not (self.training and self.rate):
                return x
            return x * nn.functional.dropout(x.new_ones(len(x), 1, 1, 1), self.rate)

    def of_rank(name: str) -> Any:
        return getattr(nn, f"{name}{rank}d")

    def lrn(n, alpha, beta, k):
        # PyTorch's alpha multiplies the mean, not the sum
        return nn.LocalResponseNorm(n, alpha * n, beta, k)

    make = {
        "conv": lambda features, k, strides, padding, groups, bias: of_rank("LazyConv")(
            features, k, strides, padding, groups=groups, bias=bias
        ),
        "up_conv": lambda features: of_rank("LazyConvTranspose")(features, 2, 2),
        "norm": lambda epsilon: of_rank("LazyBatchNorm")(epsilon),
        "relu": lambda: nn.ReLU(inplace=True),
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "gelu": nn.GELU,
        "layer_norm": nn.LayerNorm,
        "scale": Scale,
        "drop_path": DropPath,
        "channels_last": ChannelsLast,
        "max_pool": lambda window, strides, padding, ceil: of_rank("MaxPool")(
            window, strides, padding, ceil_mode=ceil
        ),
        "avg_pool": lambda *sizes: of_rank("AvgPool")(*sizes),
        "adaptive_avg_pool": lambda *size: of_rank("AdaptiveAvgPool")(size),
        "global_avg_pool": lambda: nn.Sequential(of_rank("AdaptiveAvgPool")(1), nn.Flatten()),
        "lrn": lrn,
        "flatten": nn.Flatten,
        "dense": nn.LazyLinear,
        "dropout": nn.Dropout,
    }
    modules = [
        Branches(kind, fields) if kind in ("sum", "concat") else make[kind](*fields)
        for kind, *fields in layers
    ]
    return nn.Sequential(*modules)
