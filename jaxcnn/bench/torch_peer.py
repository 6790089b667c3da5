"""The network of `bench --peer torch`: PyTorch, eager and compiled. Imports nothing of jaxcnn."""

# PyTorch is installed by those alone who compare with it.
# pyright: reportMissingImports=false

import time
from collections.abc import Callable
from typing import Any

# {"train" or "inference": {variant: steps -> seconds}}
Timers = dict[str, dict[str, Callable[[int], float]]]


def torch_network(layers: list) -> Any:
    """The module of these layers; channels first; sizes are filled in by its first call."""
    import torch
    from torch import nn

    class Branches(nn.Module):
        """Branches of one input, added or concatenated."""

        def __init__(self, kind: str, branches: list):
            super().__init__()
            self.kind, self.branches = (
                kind,
                nn.ModuleList(torch_network(branch) for branch in branches),
            )

        def forward(self, x):
            results = [branch(x) for branch in self.branches]
            return results[0] + results[1] if self.kind == "sum" else torch.cat(results, 1)

    class ChannelsLast(nn.Module):
        """Layers applied to a map of which the channels are the last axis for a while."""

        def __init__(self, inner: list):
            super().__init__()
            self.inner = torch_network(inner)

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

    def lrn(n, alpha, beta, k):
        # PyTorch's alpha multiplies the mean, not the sum
        return nn.LocalResponseNorm(n, alpha * n, beta, k)

    make = {
        "conv": lambda features, k, strides, padding, groups, bias: nn.LazyConv2d(
            features, k, strides, padding, groups=groups, bias=bias
        ),
        "norm": lambda epsilon: nn.LazyBatchNorm2d(epsilon),
        "relu": lambda: nn.ReLU(inplace=True),
        "tanh": nn.Tanh,
        "gelu": nn.GELU,
        "layer_norm": nn.LayerNorm,
        "scale": Scale,
        "drop_path": DropPath,
        "channels_last": ChannelsLast,
        "max_pool": lambda window, strides, padding, ceil: nn.MaxPool2d(
            window, strides, padding, ceil_mode=ceil
        ),
        "avg_pool": nn.AvgPool2d,
        "adaptive_avg_pool": lambda *size: nn.AdaptiveAvgPool2d(size),
        "global_avg_pool": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
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


def torch_model(layers: list, shape: tuple[int, ...]) -> Any:
    """The module for images [H, W, C], all its parameters made."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazy modules are said to be new
        model = torch_network(layers)
    height, width, channels = shape
    model.eval()(torch.zeros(1, channels, height, width))
    return model.train()


def open_network(
    *, layers, shape, num_classes, batch_size, dtype, optimizer, compile, device, threads
) -> tuple[dict, Timers]:
    """Eager with channels first and last, and with `compile` both through torch.compile. bfloat16
    is PyTorch's autocast.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    place = torch.device("cuda" if device == "gpu" and torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # as XLA's default precision on GPUs
    torch.manual_seed(0)
    height, width, channels = shape
    image = torch.rand(batch_size, channels, height, width).to(place)
    label = torch.randint(num_classes, (batch_size,)).to(place)
    timers: Timers = {"train": {}, "inference": {}}
    params = 0
    for prefix in ("eager", "compile") if compile else ("eager",):
        for layout in ("", "channels_last"):
            name = {"eager": layout or "eager", "compile": f"compile_{layout}".rstrip("_")}[prefix]
            model, x = torch_model(layers, shape).to(place), image
            if layout:
                model, x = (
                    model.to(memory_format=torch.channels_last),
                    image.contiguous(memory_format=torch.channels_last),
                )
            params = sum(p.numel() for p in model.parameters())
            update = torch_optimizer(model, **optimizer)
            called = torch.compile(model) if prefix == "compile" else model
            timers["train"][name], timers["inference"][name] = torch_timers(
                called, update, x, label, dtype
            )
    answer = {
        "params": params,
        "variants": list(timers["train"]),
        "version": torch.__version__,
        "device": str(place),
    }
    return answer, timers


def torch_optimizer(model: Any, *, name: str, learning_rate: float, **numbers: Any) -> Any:
    """SGD, Adam or AdamW with PyTorch's own defaults for all that concerns speed."""
    import torch

    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[name](model.parameters(), lr=learning_rate, **numbers)


def torch_timers(
    model: Any, optimizer: Any, image: Any, label: Any, dtype: str
) -> tuple[Callable, Callable]:
    """(training, inference): functions of a number of steps that return seconds."""
    import torch

    def autocast():
        return torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")

    def train():
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = torch.nn.functional.cross_entropy(model(image).float(), label)
        loss.backward()
        optimizer.step()

    def infer():
        with torch.inference_mode(), autocast():
            model(image)

    def timer(step, mode: bool):
        def run(steps: int) -> float:
            model.train(mode)
            synchronize()
            start = time.perf_counter()
            for _ in range(steps):
                step()
            synchronize()
            return time.perf_counter() - start

        return run

    def synchronize():
        if image.is_cuda:
            torch.cuda.synchronize()

    return timer(train, True), timer(infer, False)
