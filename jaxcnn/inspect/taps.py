"""Layers of a network by name: which there are, what they give, and how a score depends on them.

A network is here a pure function of pictures [B, H, W, C] that calls Flax modules, as
`jaxcnn.inspect.explained.network` makes one of a run. A layer's name is its path, "stage4/conv1",
as `summary` prints it; modules that hold others ("stage4") have theirs too. A layer that is called
several times is meant by its last call.

Layers are found while the network is traced, so it must not be under `jax.jit` itself: put `jit`
around the function that asks, which may as well be under `jax.vmap`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.inspect.receptive_field import walk
from jaxcnn.inspect.tracing import is_private
from jaxcnn.inspect.views import View, input_view
from jaxcnn.ops import convolution

Network = Callable[[jax.Array], Any]  # pictures [B, H, W, C] -> whatever the model gives
Score = Callable[[jax.Array], jax.Array]  # pictures [B, H, W, C] -> a number of each, [B]
Touch = Callable[[str, nn.Module, Any], Any]  # (name, module, output) -> the output to go on with


class Seen(NamedTuple):
    """A call of a layer. `shape`: of its output with the batch axis, () if it is no single array;
    `kernel`: the shape of its own parameter of this name, () without one.
    """

    name: str
    shape: tuple[int, ...]
    kernel: tuple[int, ...]


def layers_of(network: Network, images: jax.Array) -> list[Seen]:
    """The calls of layers in the order in which they end. Nothing is computed; of `images` only
    shape and dtype count.
    """
    seen: list[Seen] = []

    def touch(name: str, module: nn.Module, output: Any) -> Any:
        shape = tuple(output.shape) if isinstance(output, jax.Array) else ()
        kernel = own_parameters(module).get("kernel")
        seen.append(Seen(name, shape, () if kernel is None else tuple(jnp.shape(kernel))))
        return output

    with _tapped(touch):
        jax.eval_shape(lambda x: network(x), images)
    return seen


def spatial_layers(network: Network, images: jax.Array) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the layers that give maps [B, h, w, K] with more than one place, in the
    order of their last calls.
    """
    return _spatial(layers_of(network, images), images.shape[0])


def choose_layer(network: Network, images: jax.Array, layer: str | None) -> str:
    """`layer`, or for None the last one that gives maps [B, h, w, K] with more than one place.

    Errors: ConfigError for a layer that does not exist or gives no such map, and for a network
    without any.
    """
    return _chosen(layers_of(network, images), images.shape[0], layer)


def _spatial(layers: list[Seen], rows: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for seen in layers:
        found.pop(seen.name, None)
        if len(seen.shape) == 4 and seen.shape[0] == rows and seen.shape[1] * seen.shape[2] > 1:
            found[seen.name] = seen.shape
    return found


def _chosen(layers: list[Seen], rows: int, layer: str | None) -> str:
    found = _spatial(layers, rows)
    if not found:
        raise ConfigError(
            "this model has no layer with places (height and width): maps of layers (gradcam, "
            "layercam, features, patches) need one; take gradient, integrated, smoothgrad or "
            "occlusion (or, if the network is under jax.jit itself, put jit around the whole)"
        )
    if layer is None:
        return next(reversed(found))
    if layer in found:
        return layer
    shapes = {seen.name: seen.shape for seen in layers}
    if layer in shapes:
        size = list(shapes[layer][1:]) or "several arrays"
        raise ConfigError(
            f"layer {layer!r} gives {size} for a picture; it must give a map [height, width, "
            f"channels] of more than one place, as {', '.join(found)} do"
        )
    raise ConfigError(
        f"there is no layer {layer!r}; those with maps are "
        f"{', '.join(found)}{did_you_mean(layer, found)}"
    )


def layer_output(network: Network, images: jax.Array, *, layer: str) -> jax.Array:
    """What a layer gives, float32 [B, h, w, K] or as it is. Errors: ConfigError, see
    `choose_layer`.
    """
    found: list[jax.Array] = []

    def touch(name: str, module: nn.Module, output: Any) -> Any:
        if name == layer:
            found.append(output)
        return output

    choose_layer(network, images, layer)
    with _tapped(touch), _readable(layer):
        network(images)
        return _last(found, layer).astype(jnp.float32)


def layer_gradient(
    score: Score, images: jax.Array, *, layer: str | None
) -> tuple[jax.Array, jax.Array]:
    """(output of a layer, gradient of the score by it), float32 [B, h, w, K] each. `layer`: see
    `choose_layer`. The score of a picture must depend on that picture alone, as in evaluation it
    does.

    Errors: ConfigError, see `choose_layer`.
    """
    layers, rows = layers_of(score, images), images.shape[0]
    chosen = _chosen(layers, rows, layer)
    calls = [seen.name for seen in layers].count(chosen)

    def total(shift: jax.Array) -> tuple[jax.Array, jax.Array]:
        found: list[jax.Array] = []

        def touch(name: str, module: nn.Module, output: Any) -> Any:
            if name != chosen:
                return output
            found.append(output)
            return output + shift.astype(output.dtype) if len(found) == calls else output

        with _tapped(touch):
            value = jnp.sum(score(images))
        return value, _last(found, chosen).astype(jnp.float32)

    nothing = jnp.zeros(_spatial(layers, rows)[chosen], jnp.float32)
    with _readable(chosen):
        gradient, output = jax.grad(total, has_aux=True)(nothing)
        return output, gradient


def layer_view(network: Network, images: jax.Array, *, layer: str) -> View:
    """Which pixels each place of a layer's map sees, see `jaxcnn.inspect.views.Axis`: one for the
    rows of the picture, one for its columns.
    """
    with convolution.formulation("natural"):  # JAX's own primitives, which the walk can read
        program = jax.make_jaxpr(lambda x: layer_output(network, x, layer=layer))(images)
    (view,) = walk(program.jaxpr, [input_view(images.ndim)], lambda *_: None)
    if view is None:
        raise ConfigError(f"layer {layer!r} does not depend on the picture")
    return view


def parameters_of(network: Network, images: jax.Array, *, layer: str) -> dict[str, jax.Array]:
    """The parameters that a layer itself has, by name, as it uses them; of `images` only shape and
    dtype count.
    """

    def read(images: jax.Array) -> dict[str, jax.Array]:
        found: dict[str, jax.Array] = {}

        def touch(name: str, module: nn.Module, output: Any) -> Any:
            if name == layer:
                found.update(own_parameters(module))
            return output

        with _tapped(touch):
            network(images)
        return found

    return jax.jit(read)(images)  # which computes nothing else


def own_parameters(module: nn.Module) -> dict[str, Any]:
    """The arrays among a bound module's own parameters, without those of the modules within it."""
    params = module.variables.get("params", {})
    return {name: leaf for name, leaf in params.items() if hasattr(leaf, "shape")}


@contextlib.contextmanager
def _tapped(touch: Touch) -> Iterator[None]:
    """Within it, `touch` sees and may change what every layer but the model itself gives."""
    running: list[tuple[str, ...]] = []

    def intercept(
        next_call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        path = context.module.path
        if is_private(context.method_name) or not path or (running and running[-1] == path):
            return next_call(*args, **kwargs)
        running.append(path)
        try:
            output = next_call(*args, **kwargs)
        finally:
            running.pop()
        return touch("/".join(path), context.module, output)

    with nn.intercept_methods(intercept):
        yield


@contextlib.contextmanager
def _readable(layer: str) -> Iterator[None]:
    """JAX's error about a value that left its transformation, in our words."""
    try:
        yield
    except jax.errors.UnexpectedTracerError as error:
        raise _within(layer) from error


def _last(found: list[jax.Array], layer: str) -> jax.Array:
    """The last output; none is seen of what JAX has traced before and does not trace again."""
    if not found:
        raise _within(layer)
    return found[-1]


def _within(layer: str) -> ConfigError:
    return ConfigError(
        f"layer {layer!r} lies within a transformation (jit, scan) of the network, out of which "
        "its output cannot be taken; choose a layer outside of it, and put jit around the whole"
    )
