"""Weights from other frameworks, or from a run of our own, into a model's variables.

A source is a flat dict of names and arrays: a PyTorch state dict (torchvision, timm), a Keras HDF5
file, or a safetensors file (jaxcnn.weights.files). A family's rule table (jaxcnn.weights.rules)
says where each source name goes, jaxcnn.weights.layouts how its array is turned into ours.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcnn.core import trees
from jaxcnn.errors import CheckpointError, ConfigError, DataError
from jaxcnn.weights.files import Arrays, read_arrays, read_sealed
from jaxcnn.weights.layouts import LAYOUTS, fit, our_path
from jaxcnn.weights.rules import rules_for

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
    """What `load_weights` did, by the names of leaves.

    loaded: our leaves that were filled. unmatched: ours without a source (they keep their values).
    unused: source names that no rule placed. adapted: first layers converted to another channel
    count. new_head: leaves of the head that keep their values because the class counts differ.
    averaged: whether the moving average of a run's weights was taken.
    """

    loaded: tuple[str, ...]
    unmatched: tuple[str, ...]
    unused: tuple[str, ...]
    adapted: tuple[str, ...]
    new_head: tuple[str, ...]
    averaged: bool = False

    def __str__(self) -> str:
        of = " (moving average of the weights)" if self.averaged else ""
        lines = [f"{len(self.loaded)} arrays loaded{of}"]
        for title in ("unmatched", "unused", "adapted", "new_head"):
            names = getattr(self, title)
            if names:
                shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
                lines.append(f"{title.replace('_', ' ')} ({len(names)}): {shown}")
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

    The bias of a convolution whose unit has a BatchNorm, and no bias here, is subtracted from the
    running mean, which is the same. A first convolution for RGB is summed (one channel) or repeated
    and scaled (other counts). Arrays take our dtypes.

    Args:
        params, model_state: nested dicts; of the second, "batch_stats" can be filled.
        rules: (pattern, path) or (pattern, path, flattened), see `Rule`; the first that matches
            counts.
        layout: how the source stores kernels, "torch" or "keras" (as we do); by default "keras" for
            an HDF5 file and "torch" for all else.
        head: name of the layer that keeps its values where its class count differs.
    Errors: ConfigError if a rule names a place that we lack, or a shape does not fit; those of
    `read_arrays`.
    """
    if isinstance(source, str | Path):
        arrays, layout = read_arrays(source), layout or _layout_of(Path(source))
    else:
        arrays = {name: np.asarray(array) for name, array in source.items()}
    layout = layout or "torch"
    if layout not in LAYOUTS:
        raise ConfigError(f"weights: layout={layout!r} must be one of {', '.join(LAYOUTS)}")
    statistics = {"batch_stats": model_state.get("batch_stats", {})}
    ours = trees.flatten(params) | trees.flatten(statistics)
    new, report = _placed(ours, arrays, [Rule(*rule) for rule in rules], layout, head)
    filled = trees.unflatten(new)
    statistics = {"batch_stats": filled.pop("batch_stats")} if "batch_stats" in filled else {}
    return filled, {**model_state, **statistics}, report


def _layout_of(path: Path) -> str:
    return "keras" if path.suffix in (".h5", ".hdf5") else "torch"


def _placed(
    ours: dict[str, Any], arrays: Arrays, rules: list[Rule], layout: str, head: str
) -> tuple[dict[str, Any], WeightReport]:
    """Our leaves by name, filled as far as the rules send `arrays` to them."""
    new, sources, folded = dict(ours), {}, {}
    unused, adapted, new_head = [], [], []
    for name, array, path, rule in _translate(arrays, rules):
        if rule is None:
            unused.append(name)
            continue
        mean = re.sub(r"^(.*/)?conv/bias$", r"batch_stats/\1norm/mean", path)
        if mean in ours and path not in ours:
            folded[mean] = array
            continue
        path = our_path(path, ours, name)
        if path in sources:
            raise ConfigError(
                f"weights: {name!r} and {sources[path]!r} both go to {path!r}; make the rules "
                "disjoint"
            )
        sources[path] = name
        value, change = fit(array, ours[path], path, name, layout, rule.flattened, head)
        if change == "new_head":
            new_head.append(path)
            continue
        if change == "adapted":
            adapted.append(f"{path}: {array.shape} -> {ours[path].shape}")
        new[path] = jnp.asarray(value, ours[path].dtype)
    for path, bias in folded.items():
        new[path] = new[path] - jnp.asarray(bias, new[path].dtype)
    return new, WeightReport(
        loaded=tuple(path for path in sources if path not in new_head),
        unmatched=tuple(path for path in ours if path not in sources),
        unused=tuple(unused),
        adapted=tuple(adapted),
        new_head=tuple(new_head),
    )


def _translate(
    arrays: Arrays, rules: list[Rule]
) -> Iterator[tuple[str, np.ndarray, str, Rule | None]]:
    """(source name, array, our path but for the leaf's name, rule or None) of every array that is a
    weight.
    """
    # torch.nn.DataParallel
    prefix = "module." if arrays and all(name.startswith("module.") for name in arrays) else ""
    for full_name, array in arrays.items():
        name = full_name.removeprefix(prefix)
        if IGNORED.search(name):
            continue
        rule = next((rule for rule in rules if re.match(rule.pattern, name)), None)
        path = re.sub(rule.pattern, rule.path, name, count=1) if rule else ""
        yield full_name, array, path, rule


def fill(
    model: Any, params: Any, model_state: Any, path: str | Path
) -> tuple[Any, Any, WeightReport]:
    """Fill a model's fresh `params` and `model_state` for fine-tuning, from whatever `path` is.

    A run directory (its best checkpoint, else its last), one of its checkpoints, or a torchvision
    or timm file of the same network. Of a run that averaged its weights the average is taken: it is
    what was scored. A last layer for another number of classes keeps its fresh values.
    Errors: as load_weights; DataError for a directory without checkpoints, CheckpointError for a
    damaged one (no other is taken in its place).
    """
    path = Path(path)
    arrays = read_sealed(_checkpoint_in(path))[0] if path.is_dir() else read_arrays(path)
    own = _below("params", arrays)
    if not own:
        layout = _layout_of(path)
        return load_weights(params, model_state, arrays, rules_for(model), layout=layout)
    averaged = _below("ema", arrays)
    own |= averaged
    statistics = _below("model_state/batch_stats", arrays)
    own |= {f"batch_stats/{name}": array for name, array in statistics.items()}
    fresh = trees.flatten(params)
    resized = {
        name.rpartition("/")[0]
        for name, leaf in fresh.items()
        if name in own and _differs_in_last_axis(own[name], leaf)
    }
    head = next(iter(resized)) if len(resized) == 1 else "head"
    *filled, report = load_weights(
        params, model_state, own, ((r"", ""),), layout="keras", head=head
    )
    return *filled, replace(report, averaged=bool(averaged))


def _checkpoint_in(folder: Path) -> Path:
    """The newest best checkpoint of a run directory; of a run that has none, its newest one."""
    for kind in ("best", "last"):
        files = folder.glob(f"checkpoints/{kind}-*.safetensors*")
        # by step; of the same step, one that was written again after it was set aside
        newest = max(files, key=lambda f: (f.name.split(".")[0], not _set_aside(f)), default=None)
        if newest is not None and _set_aside(newest):
            raise CheckpointError(
                f"weights: {str(newest)!r} was found damaged, and no other is taken in its "
                "place; name the file to start from"
            )
        if newest is not None:
            return newest
    raise DataError(
        f"weights: {str(folder)!r} holds no checkpoints/; give a run directory or a weights file"
    )


def _set_aside(path: Path) -> bool:
    return path.suffix == ".damaged"


def _below(part: str, arrays: Arrays) -> Arrays:
    """The arrays whose names start with `part`/, without it."""
    return {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }


def _differs_in_last_axis(array: np.ndarray, leaf: Any) -> bool:
    return array.shape[:-1] == leaf.shape[:-1] and array.shape != leaf.shape
