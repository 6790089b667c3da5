"""The other side of `bench --peer`: the same network in PyTorch or Keras, timed one block of steps
at a time.

Runs as a script in a process of its own and imports nothing of jaxcnn. It is asked by JSON objects,
one a line, on standard input, and answers likewise on standard output:

    {"do": "open", "peer", "layers" (jaxcnn.bench.networks), "shape" [H, W, C], "num_classes",
    "batch_size", "dtype", "optimizer",
     "compile", "device" "cpu" or "gpu", "threads"}                    -> {"params", "variants",
     "version", "device"}
    {"do": "time", "kind": "train" or "inference", "variant", "steps"}  -> {"seconds"}

or {"error", "memory"} where something went wrong; `memory` says that there was too little. A block
starts and ends with an idle device.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# {"train" or "inference": {variant: steps -> seconds}}
Timers = dict[str, dict[str, Callable[[int], float]]]


def main() -> None:
    """Answer requests until standard input ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    timers: Timers = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.pop("do") == "open":
                timers.clear()  # frees the memory of the network before
                answer, opened = OPEN[request.pop("peer")](**request)
                timers.update(opened)
            else:
                answer = {"seconds": timers[request["kind"]][request["variant"]](request["steps"])}
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            memory = any(
                word in text
                for word in (
                    "OutOfMemory",
                    "RESOURCE_EXHAUSTED",
                    "out of memory",
                    "can't allocate memory",
                )
            )
            answer = {
                "error": text.splitlines()[0],
                "memory": memory or isinstance(error, MemoryError),
            }
        print(json.dumps(answer), file=answers, flush=True)


# ---- PyTorch -------------------------------------------------------------------------------------


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


def open_torch(
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


# ---- Keras on JAX --------------------------------------------------------------------------------


def keras_model(layers: list, shape: tuple[int, ...]) -> Any:
    """The functional model for images [H, W, C]; channels last."""
    import keras

    inputs = keras.Input(tuple(shape))
    return keras.Model(inputs, _keras_apply(inputs, layers))


def _keras_apply(x: Any, layers: list) -> Any:
    import keras.layers as k

    class Scale(k.Layer):
        """A learned factor for each channel."""

        def build(self, shape):
            self.factor = self.add_weight(shape=(shape[-1],), initializer="zeros")

        def call(self, x):
            return x * self.factor

    def conv(x, features, window, strides, padding, groups, bias):
        same = strides == 1 and padding == (window - 1) // 2
        x = k.ZeroPadding2D(padding)(x) if padding and not same else x
        return k.Conv2D(
            features, window, strides, "same" if same else "valid", groups=groups, use_bias=bias
        )(x)

    def max_pool(x, window, strides, padding, ceil):
        if padding and strides == 1:
            return k.MaxPooling2D(window, strides, "same")(x)
        after = [
            max(0, -(-(n - window) // strides) * strides + window - n) if ceil else padding
            for n in x.shape[1:3]
        ]
        if padding or any(after):  # zeros are as good as minus infinity after a ReLU
            x = k.ZeroPadding2D(((padding, after[0]), (padding, after[1])))(x)
        return k.MaxPooling2D(window, strides)(x)

    def lrn(x, *_):
        raise ValueError("Keras has no local response normalization; take model.batch_norm=true")

    make = {
        "conv": conv,
        "norm": lambda x, epsilon: k.BatchNormalization(momentum=0.9, epsilon=epsilon)(x),
        "relu": lambda x: k.ReLU()(x),
        "tanh": lambda x: k.Activation("tanh")(x),
        "max_pool": max_pool,
        "gelu": lambda x: k.Activation("gelu")(x),
        "layer_norm": lambda x, _, epsilon: k.LayerNormalization(epsilon=epsilon)(x),
        "scale": lambda x, _: Scale()(x),
        "drop_path": lambda x, rate: k.Dropout(rate, noise_shape=(None, 1, 1, 1))(x),
        "channels_last": lambda x, inner: _keras_apply(x, inner),  # they are
        "avg_pool": lambda x, window, strides: k.AveragePooling2D(window, strides)(x),
        "adaptive_avg_pool": lambda x, *size: (
            x if tuple(x.shape[1:3]) == size else k.AdaptiveAveragePooling2D(size)(x)
        ),
        "global_avg_pool": lambda x: k.GlobalAveragePooling2D()(x),
        "lrn": lrn,
        "flatten": lambda x: k.Flatten()(x),
        "dense": lambda x, features: k.Dense(features)(x),
        "dropout": lambda x, rate: k.Dropout(rate)(x),
        "sum": lambda x, *branches: k.Add()([_keras_apply(x, branch) for branch in branches]),
        "concat": lambda x, *branches: k.Concatenate()(
            [_keras_apply(x, branch) for branch in branches]
        ),
    }
    for kind, *fields in layers:
        x = make[kind](x, *fields)
    return x


def open_keras(
    *, layers, shape, num_classes, batch_size, dtype, optimizer, compile, device, threads
) -> tuple[dict, Timers]:
    """Keras on JAX: "fit" and "predict", and "stateless", the step of its guide to loops of one's
    own, under jit.
    """
    # JAX compiles always and finds its device; NPROC says how many threads
    del (
        compile,
        device,
        threads,
    )
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else "float32")
    random = np.random.default_rng(0)
    image = random.random((batch_size, *shape), np.float32)
    label = random.integers(0, num_classes, batch_size).astype(np.int32)
    model = keras_model(layers, shape)
    model.compile(
        keras_optimizer(**optimizer), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )

    def repeated(steps, *batch):
        for _ in range(steps):
            yield batch

    def fit(steps: int) -> float:
        start = time.perf_counter()
        model.fit(
            repeated(steps, image, label), steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0
        )
        return time.perf_counter() - start

    def predict(steps: int) -> float:
        start = time.perf_counter()
        model.predict(repeated(steps, image), steps=steps, verbose=0)
        return time.perf_counter() - start

    train, infer = keras_stateless(model, keras_optimizer(**optimizer), image, label)
    timers: Timers = {
        "train": {"fit": fit, "stateless": train},
        "inference": {"fit": predict, "stateless": infer},
    }
    params = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    import jax

    place = jax.devices()[0].device_kind
    return {
        "params": params,
        "variants": ["fit", "stateless"],
        "version": keras.__version__,
        "device": place,
    }, timers


def keras_optimizer(*, name: str, learning_rate: float, **numbers: Any) -> Any:
    """SGD, Adam or AdamW from the numbers that PyTorch's take."""
    import keras

    numbers = dict(zip(("beta_1", "beta_2"), numbers.pop("betas", ()), strict=False)) | numbers
    if "eps" in numbers:
        numbers["epsilon"] = numbers.pop("eps")
    kinds = {
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
    }
    return kinds[name](learning_rate, **numbers)


def keras_stateless(
    model: Any, optimizer: Any, image: Any, label: Any
) -> tuple[Callable, Callable]:
    """(training, inference) timers of a Keras model stepped as pure functions under jit, on a copy
    of its state, which is donated.
    """
    import jax
    import keras

    optimizer.build(model.trainable_variables)
    image, label = jax.device_put(image), jax.device_put(label)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def objective(trainable, frozen, image, label):
        outputs, frozen = model.stateless_call(trainable, frozen, image, training=True)
        return loss(label, outputs), frozen

    def step(trainable, frozen, slots, image, label):
        (value, frozen), grads = jax.value_and_grad(objective, has_aux=True)(
            trainable, frozen, image, label
        )
        trainable, slots = optimizer.stateless_apply(slots, grads, trainable)
        return value, (trainable, frozen, slots)

    train_step = jax.jit(step, donate_argnums=(0, 1, 2))
    infer_step = jax.jit(
        lambda trainable, frozen, x: model.stateless_call(trainable, frozen, x, training=False)[0]
    )
    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    held = {
        "state": jax.tree.map(
            jax.numpy.copy, tuple([v.value for v in group] for group in variables)
        )
    }

    def train(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            _, held["state"] = train_step(*held["state"], image, label)
        jax.block_until_ready(held["state"])
        return time.perf_counter() - start

    def infer(steps: int) -> float:
        start, outputs = time.perf_counter(), None
        for _ in range(steps):
            outputs = infer_step(*held["state"][:2], image)
        jax.block_until_ready(outputs)
        return time.perf_counter() - start

    return train, infer


OPEN: dict[str, Callable[..., tuple[dict, Timers]]] = {"torch": open_torch, "keras": open_keras}

if __name__ == "__main__":
    main()
