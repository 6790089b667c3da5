"""The network of `bench --peer keras`: Keras on JAX. Imports nothing of jaxcnn."""

# Keras is installed by those alone who compare with it.
# pyright: reportMissingImports=false

import os
import time
from collections.abc import Callable
from typing import Any

# {"train" or "inference": {variant: steps -> seconds}}
Timers = dict[str, dict[str, Callable[[int], float]]]


def keras_model(layers: list, shape: tuple[int, ...]) -> Any:
    """The functional model for inputs [*spatial, C]; channels last."""
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

    def of_rank(name):
        return getattr(k, f"{name}{len(x.shape) - 2}D")

    def conv(x, features, window, strides, padding, groups, bias):
        same = padding == "same" or (strides == 1 and padding == (window - 1) // 2)
        x = of_rank("ZeroPadding")(padding)(x) if padding and not same else x
        return of_rank("Conv")(
            features, window, strides, "same" if same else "valid", groups=groups, use_bias=bias
        )(x)

    def max_pool(x, window, strides, padding, ceil):
        if len(x.shape) != 4 or (padding and strides == 1):
            same = "same" if padding or ceil else "valid"  # windows as wide as their strides
            return of_rank("MaxPooling")(window, strides, same)(x)
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
        "up_conv": lambda x, features: getattr(k, f"Conv{len(x.shape) - 2}DTranspose")(
            features, 2, 2
        )(x),
        "norm": lambda x, epsilon: k.BatchNormalization(momentum=0.9, epsilon=epsilon)(x),
        "relu": lambda x: k.ReLU()(x),
        "tanh": lambda x: k.Activation("tanh")(x),
        "sigmoid": lambda x: k.Activation("sigmoid")(x),
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
        "global_avg_pool": lambda x: of_rank("GlobalAveragePooling")()(x),
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


def open_network(
    *, network, shape, num_classes, batch_size, dtype, optimizer, loss, compile, device, threads
) -> tuple[dict, Timers]:
    """Keras on JAX: "fit" and "predict", and "stateless", the step of its guide to loops of one's
    own, under jit.
    """
    del compile, device, threads  # JAX compiles always, finds its device; NPROC says the threads
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else "float32")
    random = np.random.default_rng(0)
    image = random.random((batch_size, *shape), np.float32)
    label = random.integers(0, num_classes, batch_size).astype(np.int32)
    if loss != "cross_entropy":
        raise ValueError("Keras is compared in classification alone")
    model = keras_model(network["layers"], shape)
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
        "variants": {kind: list(of_kind) for kind, of_kind in timers.items()},
        "left_out": {},
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
