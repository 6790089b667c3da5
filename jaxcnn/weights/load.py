"""Weights from other frameworks into our parameters, and our own as safetensors that any reader
opens.

A source is a flat dict of names and arrays: a PyTorch state dict (torchvision, timm), a Keras HDF5
file, or a safetensors file. A family's rule table (`jaxcnn.weights.rules`) says where each source
name goes; the arrays' layouts are turned here by rank: convolution [O, I, *window] -> [*window, I,
O], dense [O, I] -> [I, O]; BatchNorm's weight, bias, running_mean, running_var are our scale, bias,
mean, var.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError, DependencyError, did_you_mean
from jaxcnn.runs.checkpoint import entry_array, write_arrays
from jaxcnn.weights.rules import rules_for

# What each framework calls the leaves of a layer. A name that fits several of ours takes the one
# that our layer has.
LEAF_NAMES = {
    "weight": ("kernel", "scale", "embedding"),
    "bias": ("bias",),
    "running_mean": ("mean",),
    "running_var": ("var",),
    "gamma": ("scale", "layer_scale"),
    "beta": ("bias",),
    "moving_mean": ("mean",),
    "moving_variance": ("var",),
    "depthwise_kernel": ("kernel",),
}
LAYOUTS = ("torch", "keras")
IGNORED = re.compile(r"(^|[./])num_batches_tracked$")


class Rule(NamedTuple):
    """Source names that match `pattern` from their start become `path`, by `re.sub`; what follows
    the match is kept as the leaf's name.

    `flattened` (C, H, W) marks a dense layer whose inputs are a map flattened in that order; ours
    are flattened (H, W, C).
    """

    pattern: str
    path: str
    flattened: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class WeightReport:
    """What `load_weights` did. `loaded`: our leaves that were filled; `unmatched`: ours without a
    source (they keep their values);
    `unused`: source names that no rule placed; `adapted`: first layers converted to another channel
    count; `new_head`: leaves of the head that keep their values because the class counts differ."""

    loaded: tuple[str, ...]
    unmatched: tuple[str, ...]
    unused: tuple[str, ...]
    adapted: tuple[str, ...]
    new_head: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} arrays loaded"]
        for name, entries in (
            ("unmatched", self.unmatched),
            ("unused", self.unused),
            ("adapted", self.adapted),
            ("new head", self.new_head),
        ):
            if entries:
                lines.append(
                    f"{name} ({len(entries)}): "
                    f"{', '.join(entries[:8])}{', …' if len(entries) > 8 else ''}"
                )
        return "\n".join(lines)


def load_weights(
    params: Any,
    model_state: Any,
    source: str | Path | Mapping[str, Any],
    rules: Iterable[tuple],
    *,
    layout: str = "",
    head: str = "head",
) -> tuple[Any, Any, WeightReport]:
    """Fill `params` and `model_state` from a file or state dict by a rule table; returns (params,
    model_state, report).

    layout: how the source stores kernels, "torch" or "keras" (as we do); by default "keras" for an
    HDF5 file and "torch" for all else. The bias of a convolution whose unit has a BatchNorm, and no
    bias here, is subtracted from the running mean, which is the same. A first convolution for RGB
    is summed (one channel) or repeated and scaled (other counts). A layer named `head` whose class
    count differs keeps its values. Arrays take our dtypes. Raises ConfigError if a rule names a
    place that we lack, or a shape does not fit.
    """
    is_file = isinstance(source, str | Path)
    arrays = (
        read_arrays(source)
        if is_file
        else {name: np.asarray(array) for name, array in source.items()}
    )
    layout = layout or ("keras" if is_file and Path(source).suffix in (".h5", ".hdf5") else "torch")
    if layout not in LAYOUTS:
        raise ConfigError(f"weights: layout={layout!r} must be one of {', '.join(LAYOUTS)}")
    ours = {
        **flatten(params),
        **{
            f"batch_stats/{path}": leaf
            for path, leaf in flatten(model_state.get("batch_stats", {})).items()
        },
    }
    new, sources, folded, notes = dict(ours), {}, {}, {"unused": [], "adapted": [], "new_head": []}
    for name, array, path, rule in _translate(arrays, [Rule(*rule) for rule in rules]):
        if rule is None:
            notes["unused"].append(name)
            continue
        if (
            mean := re.sub(r"^(.*/)?conv/bias$", r"batch_stats/\1norm/mean", path)
        ) in ours and path not in ours:
            folded[mean] = array
            continue
        path = _our_path(path, ours, name)
        if path in sources:
            raise ConfigError(
                f"weights: {name!r} and {sources[path]!r} both go to {path!r}; make the rules "
                "disjoint"
            )
        sources[path] = name
        value, note = _fit(array, ours[path], path, name, layout, rule.flattened, head)
        if note:
            notes[note].append(
                path if note == "new_head" else f"{path}: {array.shape} -> {ours[path].shape}"
            )
        if note != "new_head":
            new[path] = jnp.asarray(value, ours[path].dtype)
    for path, bias in folded.items():
        new[path] = new[path] - jnp.asarray(bias, new[path].dtype)
    loaded = tuple(path for path in sources if path not in notes["new_head"])
    unmatched = tuple(path for path in ours if path not in sources)
    stats = {
        path.removeprefix("batch_stats/"): leaf
        for path, leaf in new.items()
        if path.startswith("batch_stats/")
    }
    params = unflatten(
        {path: leaf for path, leaf in new.items() if not path.startswith("batch_stats/")}
    )
    model_state = {**model_state, **({"batch_stats": unflatten(stats)} if stats else {})}
    return (
        params,
        model_state,
        WeightReport(
            loaded, unmatched, **{note: tuple(entries) for note, entries in notes.items()}
        ),
    )


def _translate(
    arrays: Mapping[str, np.ndarray], rules: list[Rule]
) -> Iterator[tuple[str, np.ndarray, str, Rule | None]]:
    """(source name, array, our path but for the leaf's name, rule or None) of every array that is a
    weight.
    """
    # torch.nn.DataParallel
    prefix = "module." if arrays and all(name.startswith("module.") for name in arrays) else ""
    for full_name, array in arrays.items():
        name = full_name.removeprefix(prefix)
        if not IGNORED.search(name):
            rule = next((rule for rule in rules if re.match(rule.pattern, name)), None)
            yield (
                full_name,
                array,
                re.sub(rule.pattern, rule.path, name, count=1) if rule else "",
                rule,
            )


def _fit(
    array,
    target,
    path: str,
    name: str,
    layout: str,
    flattened: tuple[int, int, int] | None,
    head: str,
) -> tuple[np.ndarray, str]:
    """(the array in the shape of our leaf, what was done to it: "", "adapted" or "new_head");
    ConfigError if it does not fit.
    """
    value = _to_our_layout(array, target.shape, path, layout, flattened)
    if value.shape == target.shape:
        return value, ""
    if _is_first_convolution(value, target):
        return _adapt_channels(value, target.shape[-2]), "adapted"
    if f"/{head}/" in f"/{path}" and value.shape[:-1] == target.shape[:-1]:
        return value, "new_head"
    raise ConfigError(
        f"weights: {name!r} has shape {array.shape}, which does not fit {path!r} with shape "
        f"{target.shape};"
        " choose the model that these weights belong to, or other rules"
    )


def _our_path(path: str, ours: Mapping[str, Any], source: str) -> str:
    """The path of our leaf for a translated source path, whose last part is still the source's leaf
    name (or already ours).
    """
    layer, _, leaf = path.replace(".", "/").rpartition("/")
    for name in (leaf, *LEAF_NAMES.get(leaf, ())):
        for candidate in (f"{layer}/{name}".lstrip("/"), f"batch_stats/{layer}/{name}"):
            if candidate in ours:
                return candidate
    raise ConfigError(
        f"weights: the rules send {source!r} to {path!r}, which the model does not "
        f"have{did_you_mean(path, ours)}"
    )


def _to_our_layout(
    array: np.ndarray,
    shape: tuple[int, ...],
    path: str,
    layout: str,
    flattened: tuple[int, int, int] | None,
) -> np.ndarray:
    """A source's array in our layout; of the wrong shape where nothing fits, for the caller to
    report.
    """
    if layout == "torch" and path.endswith("kernel") and array.ndim >= 2:
        if flattened is not None:
            array = array.reshape(-1, *flattened)  # [O, C, H, W]
        array = np.moveaxis(array, (0, 1), (-1, -2))  # [*window, I, O]
        if len(shape) == 2 and array.size == math.prod(
            shape
        ):  # a window as large as its map is a dense layer on the flattened map
            array = array.reshape(shape)
    if (
        layout == "keras"
        and array.ndim == len(shape) == 4
        and shape[-2] == 1
        and array.shape[-2] * array.shape[-1] == shape[-1]
    ):
        return array.reshape(shape)  # depthwise [H, W, C, multiplier]
    same_but_ones = [n for n in array.shape if n != 1] == [n for n in shape if n != 1]
    return array.reshape(shape) if same_but_ones else array


def _is_first_convolution(value: np.ndarray, target: Any) -> bool:
    """Whether a kernel differs from ours in the channel count of an RGB input alone."""
    fits = (
        value.ndim == target.ndim >= 3
        and value.shape[:-2] == target.shape[:-2]
        and value.shape[-1] == target.shape[-1]
    )
    return fits and value.shape[-2] == 3


def _adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """[*window, 3, O] -> [*window, channels, O]: summed for grey images, so that grey as RGB gives
    the same; else repeated and scaled.
    """
    if channels == 1:
        return kernel.sum(-2, keepdims=True)
    repeats = -(-channels // 3)
    return np.concatenate([kernel] * repeats, axis=-2)[..., :channels, :] * (3 / channels)


def flatten(tree: Any) -> dict[str, Any]:
    """A nested dict as {"a/b/kernel": leaf}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(str(getattr(part, "key", part)) for part in path): leaf for path, leaf in leaves
    }


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b/kernel": leaf} as a nested dict."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors, .pt, .pth, .bin (PyTorch) or .h5, .hdf5 (Keras) file, by name
    ("/" between HDF5 groups).

    Raises DataError for a missing or damaged file or an unknown suffix, DependencyError where torch
    or h5py is needed and missing.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"weights: no file {str(path)!r}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in (".pt", ".pth", ".bin"):
        return _read_torch(path)
    if path.suffix in (".h5", ".hdf5"):
        return _read_hdf5(path)
    raise DataError(
        f"weights: {str(path)!r} must end in .safetensors, .pt, .pth, .bin, .h5 or .hdf5"
    )


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise DependencyError(
            f"weights: {str(path)!r} needs PyTorch: pip install torch; or convert the file to "
            ".safetensors"
        ) from error
    state = torch.load(path, map_location="cpu", weights_only=True)  # never runs code of the file
    for wrapper in ("state_dict", "model", "model_state_dict"):
        state = state[wrapper] if isinstance(state.get(wrapper), dict) else state
    return {
        name: (value.float() if value.is_floating_point() else value).numpy()
        for name, value in state.items()
        if hasattr(value, "numpy")
    }


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise DependencyError(f"weights: {str(path)!r} needs h5py: pip install h5py") from error
    arrays = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of any safetensors file, sealed or not: 8 bytes with the header's length, a JSON
    header, the raw little-endian arrays.
    """
    data = Path(path).read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        header, body = json.loads(data[8 : 8 + length]), memoryview(data)[8 + length :]
        return {
            name: entry_array(entry, body)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"weights: {str(path)!r} is not a whole safetensors file ({error}); fetch or write it "
            "again"
        ) from error


def fill(
    model: Any, params: Any, model_state: Any, path: str | Path
) -> tuple[Any, Any, WeightReport]:
    """Fill a model's fresh `params` and `model_state` for fine-tuning, from whatever `path` is.

    A run directory (its best checkpoint, else its last), a file of `save_weights`, or a torchvision
    or timm file of the same network. A last layer for another number of classes keeps its fresh
    values. Errors: as load_weights; DataError for a directory without checkpoints.
    """
    path = Path(path)
    if path.is_dir():
        files = [
            *sorted(path.glob("checkpoints/best-*.safetensors"))[-1:],
            *sorted(path.glob("checkpoints/last-*.safetensors"))[-1:],
        ]
        if not files:
            raise DataError(
                f"weights: {str(path)!r} holds no checkpoints/; give a run directory or a weights "
                "file"
            )
        path = files[0]
    arrays = read_arrays(path)
    if not any(name.startswith("params/") for name in arrays):
        return load_weights(params, model_state, path, rules_for(model))
    stripped = {name.removeprefix("model_state/"): array for name, array in arrays.items()}
    own = {
        n.removeprefix("params/"): array
        for n, array in stripped.items()
        if n.startswith(("params/", "batch_stats/"))
    }
    ours = flatten(params)
    other = {
        n.rpartition("/")[0]
        for n, x in own.items()
        if n in ours and ours[n].shape[:-1] == x.shape[:-1] and ours[n].shape != x.shape
    }
    head = next(iter(other)) if len(other) == 1 else "head"
    return load_weights(params, model_state, own, ((r"", ""),), layout="keras", head=head)


def save_weights(path: str | Path, params: Any, model_state: Any) -> None:
    """Write our parameters and model state as safetensors, named "params/…/kernel",
    "batch_stats/…/mean".
    """
    arrays = {
        name: np.asarray(leaf)
        for name, leaf in sorted(flatten({"params": params, **model_state}).items())
    }
    write_arrays(Path(path), arrays, {"format": "jaxcnn 1"})


def restore_weights(path: str | Path, params: Any, model_state: Any) -> tuple[Any, Any]:
    """What `save_weights` wrote, in the trees (params, model_state) of a model; raises ConfigError
    naming each leaf that differs.
    """
    tree = flatten({"params": params, **model_state})
    arrays = read_safetensors(path)
    wrong = [
        f"{name}: file {arrays[name].shape if name in arrays else 'has none'}, model {leaf.shape}"
        for name, leaf in tree.items()
        if name not in arrays or arrays[name].shape != leaf.shape
    ]
    wrong += [
        f"{name}: file {arrays[name].shape}, model has none" for name in arrays if name not in tree
    ]
    if wrong:
        raise ConfigError(
            f"weights: {str(path)!r} does not fit the model: {'; '.join(wrong[:5])}; choose the "
            "model it was saved from"
        )
    restored = unflatten(
        {name: jnp.asarray(arrays[name], leaf.dtype) for name, leaf in tree.items()}
    )
    return restored.pop("params"), restored
