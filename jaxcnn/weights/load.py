"""Weights from other frameworks, or from a run of our own, into a model's variables.

A source is a flat dict of names and arrays: a PyTorch state dict (torchvision, timm), a Keras HDF5
file, or a safetensors file (jaxcnn.weights.files). A family's rule table (jaxcnn.weights.rules)
says where each source name goes, jaxcnn.weights.layouts how its array is turned into ours.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.core import optimizers, trees
from jaxcnn.errors import CheckpointError, ConfigError, DataError
from jaxcnn.weights import hub
from jaxcnn.weights.files import Arrays, read_arrays
from jaxcnn.weights.identity import NAME, read_in_place
from jaxcnn.weights.layouts import LAYOUTS, find_path, fit, our_path
from jaxcnn.weights.prefixes import Chosen, choose
from jaxcnn.weights.report import WeightReport, check_filled, first
from jaxcnn.weights.rules import rules_for

PUBLISHED = "model.safetensors"  # of a folder that `publish` made; also the usual name on the hub
IGNORED = re.compile(r"(^|[./])num_batches_tracked$")
# what holds the parameters that a run is evaluated at: (its kind, where, a number beside them)
_HOLDERS: tuple[tuple[Any, str, str], ...] = (
    (optax.contrib.ScheduleFreeState, "z", "b1"),
    (optimizers.LookaheadState, "slow", "count"),
    (optax.contrib.SAMState, "cache", "steps_since_sync"),
)


class Rule(NamedTuple):
    """Source names that match `pattern` from their start become `path`, by `re.sub`; what follows
    the match is kept as the leaf's name.

    `flattened` (C, H, W) marks a dense layer whose inputs are a map flattened in that order; ours
    are flattened (H, W, C).
    """

    pattern: str
    path: str
    flattened: tuple[int, int, int] | None = None


def load_weights(
    params: Any,
    model_state: Any,
    source: str | Path | Mapping[str, Any],
    rules: Iterable[tuple],
    *,
    layout: str = "",
    head: str = "head",
) -> tuple[Any, Any, WeightReport]:
    """Fill `params` and `model_state` from a file (here or on the hub) or state dict by a rule
    table; returns (params, model_state, report).

    The bias of a convolution whose unit has a BatchNorm, and no bias here, is subtracted from the
    running mean, which is the same. A first convolution for RGB is summed (one channel) or repeated
    and scaled (other counts). Arrays take our dtypes.

    Args:
        params, model_state: nested dicts; of the second, "batch_stats" can be filled.
        rules: (pattern, path) or (pattern, path, flattened), see `Rule`; the first that matches
            counts.
        layout: how the source stores kernels, "torch" or "keras" (as we do); by default "keras" for
            an HDF5 file and for names that end in "kernel", "torch" for all else.
        head: name of the layer that keeps its values where its class count differs.
    The source's names may have any prefix (jaxcnn.weights.prefixes).
    Errors: ConfigError if nothing fits, a rule names a place that we lack, a shape does not fit, or
    numbers are no floats; DataError for NaN and infinities; those of `read_arrays`.
    """
    if isinstance(source, str | Path):
        file = hub.local(source)
        arrays, layout = read_arrays(file), layout or _layout_of(file)
    else:
        arrays = {name: np.asarray(array) for name, array in source.items()}
    if not layout:
        layout = "keras" if any(re.search(r"(^|[./])kernel$", n) for n in arrays) else "torch"
    if layout not in LAYOUTS:
        raise ConfigError(f"weights: layout={layout!r} must be one of {', '.join(LAYOUTS)}")
    placing = _Placing(_flat(params, model_state), [Rule(*r) for r in rules], layout, head)
    chosen = choose(arrays, placing.fits)
    new, report = placing.place(arrays, chosen)
    if not report.loaded and not report.new_head:
        raise ConfigError(
            f"weights: none of the {len(arrays)} arrays fits this model: the source has "
            f"{first(list(arrays)) or 'nothing'}; the model has {first(list(placing.ours))}. "
            "Give weights of the same network"
        )
    return _unflat(new, model_state, report)


def _layout_of(path: Path) -> str:
    return "keras" if path.suffix.lower() in (".h5", ".hdf5") else ""


def _flat(params: Any, model_state: Any) -> dict[str, Any]:
    """The leaves that can be filled, by name."""
    statistics = {"batch_stats": model_state.get("batch_stats", {})}
    return trees.flatten(params) | trees.flatten(statistics)


def _unflat(
    leaves: dict[str, Any], model_state: Any, report: WeightReport
) -> tuple[Any, Any, WeightReport]:
    filled = trees.unflatten(leaves)
    statistics = {"batch_stats": filled.pop("batch_stats")} if "batch_stats" in filled else {}
    return filled, {**model_state, **statistics}, report


@dataclass(frozen=True)
class _Placing:
    """Where a source's arrays go in our leaves, by name."""

    ours: dict[str, Any]
    rules: list[Rule]
    layout: str
    head: str

    def translate(self, name: str) -> tuple[str, Rule | None]:
        """(our path but for the leaf's name, the rule that gives it) of a source's name."""
        rule = next((rule for rule in self.rules if re.match(rule.pattern, name)), None)
        if rule is None or IGNORED.search(name):
            return "", None
        return re.sub(rule.pattern, rule.path, name, count=1), rule

    def fits(self, name: str, array: np.ndarray) -> str | None:
        """Our leaf that an array fits, if any."""
        path, rule = self.translate(name)
        path = None if rule is None else find_path(path, self.ours)
        if rule is None or path is None:
            return None
        try:
            fit(array, self.ours[path], path, name, self.layout, rule.flattened, self.head)
        except (ConfigError, ValueError):
            return None
        return path

    def place(self, arrays: Arrays, chosen: Chosen) -> tuple[dict[str, Any], WeightReport]:
        """Our leaves by name, filled as far as the rules send `arrays` to them."""
        ours, new = self.ours, dict(self.ours)
        sources, folded = {}, {}
        unused, adapted, new_head = [], [], []
        for name, full in chosen.names.items():
            path, rule = self.translate(name)
            if rule is None:
                unused += [] if IGNORED.search(name) else [full]
                continue
            mean = re.sub(r"^(.*/)?conv/bias$", r"batch_stats/\1norm/mean", path)
            if mean in ours and path not in ours:
                value, _ = fit(arrays[full], ours[mean], mean, full, self.layout, None, "")
                folded[mean] = _floats(full, value, ours[mean].dtype)
                continue
            path = our_path(path, ours, full)
            if path in sources:
                raise ConfigError(
                    f"weights: {full!r} and {sources[path]!r} both go to {path!r}; make the rules "
                    "disjoint"
                )
            sources[path] = full
            value, change = fit(
                arrays[full], ours[path], path, full, self.layout, rule.flattened, self.head
            )
            if change == "new_head":
                new_head.append(path)
                continue
            if change == "adapted":
                adapted.append(f"{path}: {arrays[full].shape} -> {ours[path].shape}")
            new[path] = jnp.asarray(_floats(full, value, ours[path].dtype), ours[path].dtype)
        for path, bias in folded.items():
            new[path] = new[path] - jnp.asarray(bias, new[path].dtype)
        report = WeightReport(
            loaded=tuple(path for path in sources if path not in new_head),
            unmatched=tuple(path for path in ours if path not in sources),
            unused=tuple(unused),
            adapted=tuple(adapted),
            new_head=tuple(new_head),
            averaged=chosen.averaged,
            prefix=chosen.prefix,
            beside=chosen.beside,
            others=chosen.others,
        )
        return new, replace(report, share=self.share(report.loaded))

    def share(self, loaded: Sequence[str]) -> float:
        """Of the numbers among our parameters, those in the leaves `loaded`."""
        sizes = {name: leaf.size for name, leaf in self.ours.items() if _is_parameter(name)}
        return sum(sizes.get(name, 0) for name in loaded) / max(sum(sizes.values()), 1)


def _is_parameter(name: str) -> bool:
    return not name.startswith("batch_stats/")


def _floats(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """As float32, or as float64 where that is wanted. Errors: ConfigError for other numbers,
    DataError for such that are not finite, or would not be.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ConfigError(
            f"weights: {name!r} holds {array.dtype}, not floats; quantized weights must be turned "
            "back into floats first"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float64 if dtype == np.float64 else np.float32)
    if not np.isfinite(array).all():
        raise DataError(
            f"weights: {name!r} holds {int((~np.isfinite(array)).sum())} numbers that are not "
            "finite (NaN or infinite); take an earlier checkpoint"
        )
    return array


def fill(
    model: Any, params: Any, model_state: Any, path: str | Path, *, least: float = 0.5
) -> tuple[Any, Any, WeightReport]:
    """Fill a model's fresh `params` and `model_state` for fine-tuning, from whatever `path` is.

    A run directory (its best checkpoint, else its last), one of its checkpoints, a published model,
    a torchvision or timm file of the same network, or the address of one on the hub
    (jaxcnn.weights.hub). Of a run the weights are taken that were scored: the average, or what its
    optimizer is evaluated at (jaxcnn.core.optimizers.evaluation_params). A last layer for another
    number of classes keeps its fresh values.
    Errors: as load_weights; ConfigError where fewer than the share `least` of the arrays of
    parameters, the last layer apart, are filled; DataError for a directory without checkpoints,
    CheckpointError for a damaged one (no other is taken in its place).
    """
    source, path = str(path), hub.local(path)
    file = _checkpoint_in(path) if path.is_dir() else path
    ours = file.parent.name == "checkpoints" and NAME.fullmatch(file.name)
    arrays = read_in_place(file) if ours and file.is_file() else read_arrays(file)
    ours = _flat(params, model_state)
    own, averaged = _own(arrays, ours)
    if own:
        resized = {
            name.rpartition("/")[0]
            for name, leaf in ours.items()
            if name in own and _differs_in_last_axis(own[name], leaf)
        }
        head = next(iter(resized)) if len(resized) == 1 else "head"
        placing = _Placing(ours, [Rule("", "")], "keras", head)
        new, report = placing.place(own, Chosen({name: name for name in own}))
        filled = _unflat(new, model_state, replace(report, averaged=averaged))
    else:
        head, layout = "head", _layout_of(path)
        filled = load_weights(params, model_state, arrays, rules_for(model), layout=layout)
    check_filled(source, trees.flatten(params), filled[-1], head=head, least=least)
    return filled


def _own(arrays: Arrays, ours: dict[str, Any]) -> tuple[Arrays, bool]:
    """(arrays by the names of our leaves, whether they are the average) of a checkpoint of ours, of
    variables of Flax, or of arrays most of which have the names of `ours`; {} for other files.
    """
    arrays = {name.replace(".", "/"): array for name, array in arrays.items()}
    own, average = _below("params", arrays), _below("ema", arrays)
    if not own:
        return (arrays if 2 * len(arrays.keys() & ours.keys()) > len(arrays) else {}), False
    statistics = (
        (average and _below("ema_state/batch_stats", arrays))
        or _below("model_state/batch_stats", arrays)
        or _below("batch_stats", arrays)
    )
    named = {f"batch_stats/{name}": array for name, array in statistics.items()}
    return (own | average if average else _evaluated(own, arrays)) | named, bool(average)


def _evaluated(own: Arrays, arrays: Arrays) -> Arrays:
    """A checkpoint's parameters `own` as its optimizer is evaluated at them."""
    for kind, holder, number in _HOLDERS:
        for name in arrays:
            above, _, last = name.rpartition("/")
            held = _below(f"{above}/{holder}", arrays) if last == number else {}
            if held and name.startswith("opt_state/"):
                found = {number: arrays[name], holder: {n: held.get(n) for n in own}}
                state = kind(**dict.fromkeys(kind._fields) | found)
                there = optimizers.evaluation_params(state, own)
                return {n: np.asarray(array) for n, array in there.items()}
    return own


def _checkpoint_in(folder: Path) -> Path:
    """The newest best checkpoint of a run directory; of a run that has none, its newest one."""
    if (folder / "replicas").is_dir():
        raise DataError(
            f"weights: {str(folder)!r} is a sweep; choose one of its runs, such as "
            f"{str(folder / 'replicas' / '0')!r}"
        )
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
    if (folder / PUBLISHED).is_file():
        return folder / PUBLISHED
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
