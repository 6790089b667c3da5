"""The network of a run: its layers, the filters of the first, what they make of one image."""

from typing import Any

import jax
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import model_inputs, prepare
from jaxcnn.core.program import State, evaluation_variables
from jaxcnn.core.protocols import Batch, Tree
from jaxcnn.errors import ConfigError
from jaxcnn.inspect.summary import Layer, summarize_layers, total_macs, total_params
from jaxcnn.runs.report.page import Html, join, note, table, tag
from jaxcnn.runs.report.pictures import Pictures, tiles

MOST_LAYERS = 400  # rows of the table
MOST_FILTERS = 64
MOST_MAPS = 16  # channels of a layer
MAPPED = 4  # layers whose feature maps are shown


def layers_of(e: Experiment) -> list[Layer]:
    """The layers of its model for the shapes of its data."""
    spec = e.data.spec()
    batch = {name: jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for name, s in spec.items()}
    inputs = jax.eval_shape(lambda b: model_inputs(e, prepare(e, b)), batch)
    return summarize_layers(e.model, tuple(inputs))


def layer_table(layers: list[Layer]) -> Html:
    """Shapes, parameters, multiplications and receptive fields."""

    def by(sizes: tuple[Any, ...]) -> str:
        return "×".join(str(size) for size in sizes) or "–"

    head = ("layer", "kind", "output", "parameters", "MACs", "receptive field", "stride")
    rows = [
        (*(l.name, l.kind, by(l.shape), f"{l.params:,}", f"{l.macs:,}"),
         by(l.receptive_field), by(l.stride))
        for l in layers[:MOST_LAYERS]
    ]  # fmt: skip
    rows.append(("total", "", "", f"{total_params(layers):,}", f"{total_macs(layers):,}", "", ""))
    more = len(layers) - MOST_LAYERS
    cut = note(f"{more:,} more layers are counted, not shown") if more > 0 else None
    return join([table(head, rows, words=3), cut])


def filters(layers: list[Layer], state: Tree, pictures: Pictures) -> Html:
    """The kernels of the first convolution, each stretched to its own range.

    Errors: ConfigError where there is nothing to be seen.
    """
    for layer in layers:
        kernel = _kernel(_variables(state)["params"], layer.name)
        if kernel is not None and kernel.ndim == 4:
            break
    else:
        raise ConfigError("the network has no two-dimensional convolution")
    if max(kernel.shape[:2]) == 1:
        raise ConfigError(f"the kernels of the first convolution, {layer.name}, are 1×1")
    each = np.moveaxis(kernel, -1, 0)[:MOST_FILTERS]  # [N, h, w, inputs]
    colour = each.shape[-1] == 3
    words = f"{layer.name}: {kernel.shape[-1]} kernels of {kernel.shape[0]}×{kernel.shape[1]}"
    words += f", the first {len(each)}" if len(each) < kernel.shape[-1] else ""
    if not colour and each.shape[-1] > 1:
        words += f", of {each.shape[-1]} input channels the first"
    picture = pictures.add(tiles(each if colour else each[..., 0]), words)
    return _figure(words, picture)


def feature_maps(
    e: Experiment, layers: list[Layer], state: Tree, example: Batch, pictures: Pictures
) -> Html:
    """Outputs of up to MAPPED layers for one example (a batch of one, as the data have it), each
    channel stretched to its own range.

    Errors: ConfigError where no layer gives maps.
    """
    variables = dict(_variables(state))

    def run(variables: Tree, batch: Batch) -> Tree:
        inputs = model_inputs(e, prepare(e, batch))
        _, seen = e.model.apply(
            variables,
            *inputs,
            train=False,
            rngs={"params": jax.random.key(0)},  # for every name that the model may ask for
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return seen["intermediates"]

    found = jax.device_get(jax.jit(run)(variables, example))
    maps = {}
    for name in dict.fromkeys(layer.name for layer in layers):
        x = _output(found, name)
        if x is not None and x.ndim == 4 and min(x.shape[1:3]) > 1:
            maps[name] = x[0]
    if not maps:
        raise ConfigError("no layer of the network gives maps of height and width")
    chosen = np.unique(np.linspace(0, len(maps) - 1, min(MAPPED, len(maps))).round().astype(int))
    parts = []
    for place in chosen:
        name, x = list(maps.items())[place]
        shown = np.moveaxis(x, -1, 0)[:MOST_MAPS]
        words = f"{name}: {x.shape[2]} channels of {x.shape[0]}×{x.shape[1]}"
        words += f", the first {len(shown)}" if len(shown) < x.shape[2] else ""
        parts.append(_figure(words, pictures.add(tiles(shown, least=48), words)))
    return tag("div", parts, class_="charts")


def _figure(words: str, picture: Html | None) -> Html:
    missing = note("no room on this page") if picture is None else None
    return tag("figure", tag("figcaption", words), picture, missing, class_="maps")


def _variables(state: Tree) -> Tree:
    """Errors: ConfigError for a state of a program of one's own."""
    if not isinstance(state, State):
        raise ConfigError("the state is that of a program of its own, with networks of its own")
    return evaluation_variables(state)


def _kernel(params: Tree, name: str) -> np.ndarray | None:
    """The kernel of the layer called a/b/c."""
    for part in name.split("/"):
        params = params.get(part) if isinstance(params, dict) else None
    kernel = params.get("kernel") if isinstance(params, dict) else None
    return None if kernel is None else np.asarray(kernel, np.float32)


def _output(intermediates: Tree, name: str) -> np.ndarray | None:
    """The first output of the layer called a/b/c."""
    for part in name.split("/"):
        intermediates = intermediates.get(part) if isinstance(intermediates, dict) else None
    calls = intermediates.get("__call__") if isinstance(intermediates, dict) else None
    x = calls[0] if calls else None
    return np.asarray(x, np.float32) if isinstance(x, np.ndarray) else None
