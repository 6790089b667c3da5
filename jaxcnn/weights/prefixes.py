"""Which of a file's arrays are the weights that are meant, and what stands before their names.

A file may hold more than one network (raw weights and their moving average), and what trained it
beside (an optimizer's state), and each tool that wraps a model puts a word before its names:
`module.` (data parallelism), `_orig_mod.` (torch.compile), `model.`, `backbone.`, `state_dict.`, in
any order. No list of such words is complete; but the names behind them are those of the network. So
every beginning of a name is tried as a prefix, and the one that most arrays fit behind is taken.
"""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np

# of what trained a network, as large and as named as its weights
NO_WEIGHTS = re.compile(r"optim|opt_state|exp_avg|momentum_buffer|scheduler|scaler", re.IGNORECASE)
_AVERAGED = re.compile(r"(^|[._/])(ema|swa|averaged?)([._/]|$)", re.IGNORECASE)
# between the names of a network where a part of it was wrapped
_WITHIN = re.compile(
    r"(?<![^./])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)[./]"
)

# (name, array) -> the path of our leaf that it fits, or None
Fits = Callable[[str, np.ndarray], str | None]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The arrays below a prefix.

    names: the name in the file by the name without prefix and wrappers. prefix: "" for none.
    averaged: whether they are a moving average. beside: (first part of a name, number of arrays) of
    all that was left out. others: other prefixes that as many arrays fit behind.
    """

    names: dict[str, str]
    prefix: str = ""
    averaged: bool = False
    beside: tuple[tuple[str, int], ...] = ()
    others: tuple[str, ...] = ()


def choose(arrays: dict[str, np.ndarray], fits: Fits) -> Chosen:
    """What is meant of a file's arrays; of prefixes that as many fit behind a moving average (it is
    what was scored), then the shortest, then the first.
    """
    found, plain = _search({name: name for name in arrays}, arrays, fits), True
    inner = {_WITHIN.sub("", name): name for name in arrays}
    if len(inner) == len(arrays) and inner.keys() != arrays.keys():
        unwrapped = _search(inner, arrays, fits)
        if max(map(len, unwrapped.values())) > max(map(len, found.values())):
            found, plain = unwrapped, False
    most = max(map(len, found.values()))
    best = [prefix for prefix, paths in found.items() if len(paths) == most] if most else [""]
    best.sort(key=lambda p: (not _is_average(p, arrays), len(re.split(r"[./]", p))))
    prefix = best[0]
    all_names = {name: name for name in arrays} if plain else inner
    taken = {
        name.removeprefix(prefix): full
        for name, full in all_names.items()
        if name.startswith(prefix)
    }
    left = [name for name in arrays if name not in set(taken.values())]
    left = [name for name in left if not name.endswith("n_averaged")]
    return Chosen(
        names=taken,
        prefix=prefix,
        averaged=_is_average(prefix, arrays),
        beside=tuple(Counter(re.split(r"[./]", name)[0] for name in left).items()),
        others=tuple(best[1:]),
    )


def _search(
    names: dict[str, str], arrays: dict[str, np.ndarray], fits: Fits
) -> dict[str, set[str]]:
    """The paths of our leaves that are fitted behind each prefix."""
    found: dict[str, set[str]] = defaultdict(set, {"": set()})
    for name, full in names.items():
        for start in (0, *(match.end() for match in re.finditer(r"[./]", name))):
            prefix = name[:start]
            if not NO_WEIGHTS.search(prefix) and (path := fits(name[start:], arrays[full])):
                found[prefix].add(path)
    return found


def _is_average(prefix: str, arrays: dict[str, np.ndarray]) -> bool:
    """Whether names with this prefix are those of averaged weights; torch.optim.swa_utils puts the
    number of averaged models beside them.
    """
    count = arrays.get(f"{prefix.removesuffix('module.')}n_averaged")
    counted = count is not None and count.size == 1 and count.item() > 0
    return bool(_AVERAGED.search(prefix)) or (prefix.endswith("module.") and counted)
