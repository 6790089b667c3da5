"""Several processes ("hosts") that train one run together, each with devices of its own, by JAX's
multi-controller runtime (https://docs.jax.dev/en/latest/multi_process.html): each runs the same
program on its rows of each batch, and XLA sums over all devices.

Whatever depends on more than the step and the numbers of the program, as a clock, a signal or a
file does, is one host's alone: the others are `told`, or all `Agree`, so that none waits for a step
that another does not make. Without `together` there is one host, this process.
"""

import contextlib
import json
from collections import deque
from collections.abc import Generator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn.core import trees
from jaxcnn.core.protocols import Batch, Device, Tree
from jaxcnn.errors import ConfigError

T = TypeVar("T")
LAG = 2  # calls after which what hosts agree on is known to all, so that no step waits for it
JSON_BYTES = 4096  # of which what is told is a multiple
_state = {"count": 1, "index": 0, "progress": 0}


@contextlib.contextmanager
def together() -> Generator[None]:
    """All hosts are one machine to what is compiled within: `devices` are those of all.

    Errors: ConfigError for hosts with different numbers of devices.
    """
    of_each = [sum(d.process_index == i for d in jax.devices()) for i in range(jax.process_count())]
    if len(set(of_each)) > 1:
        raise ConfigError(
            f"the hosts have {of_each} devices; each needs the same number: let JAX see as many on "
            "each"
        )
    before = dict(_state)
    _state.update(count=len(of_each), index=jax.process_index(), progress=0)
    try:
        yield
    finally:
        _state.update(before)


def count() -> int:
    """Of hosts that train together."""
    return _state["count"]


def index() -> int:
    """Of this host, from 0."""
    return _state["index"]


def first() -> bool:
    """Whether this is the host that writes, speaks and decides."""
    return index() == 0


def devices() -> list[Device]:
    """All devices that train together, host by host."""
    if count() == 1:
        return jax.local_devices()
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def progress() -> int:
    """How often this host has begun what all hosts do: one that lags behind is waited for."""
    return _state["progress"]


def own_rows(rows: np.ndarray) -> np.ndarray:
    """This host's part of what belongs to the rows of a batch, [..., B]: [..., B / hosts]."""
    return np.split(rows, count(), axis=-1)[index()]


def put(batch: Batch, sharding: NamedSharding) -> Batch:
    """A batch of this host's rows where the devices want it: that of all hosts."""
    if count() == 1:
        return jax.device_put(batch, sharding)
    _state["progress"] += 1
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(x))
        for name, x in batch.items()
    }


def everywhere(tree: Tree, shardings: Tree) -> Tree:
    """A tree that each host has, as arrays of all devices, laid out as `shardings` says: a tree of
    NamedSharding, or one for all; what is laid out so already stays.
    """

    def place(x: Any, sharding: NamedSharding) -> Any:
        if count() == 1:
            there = isinstance(x, jax.Array) and x.sharding == sharding
            return x if there else jax.device_put(x, sharding)
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x
        if isinstance(x, jax.Array) and trees.is_key(x):
            data = place(jax.random.key_data(x), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda x: place(x, shardings), tree)
    return jax.tree.map(place, tree, shardings)


def local(tree: Tree) -> Tree:
    """A tree that lies whole on this host's devices, as arrays of this host."""
    if count() == 1:
        return tree

    def gather(x: jax.Array) -> jax.Array:
        if x.is_fully_addressable:
            return x
        if x.is_fully_replicated:
            return x.addressable_data(0)
        host = np.empty(x.shape, x.dtype)
        for shard in x.addressable_shards:
            host[shard.index] = shard.data
        return jnp.asarray(host)

    return jax.tree.map(gather, tree)


def told(value: T) -> T:
    """What the first host has, JSON-able: all hosts must ask, in the same order."""
    if count() == 1:
        return value
    text = json.dumps(value).encode() if first() else b""
    text += b" " * (-len(text) % JSON_BYTES)  # each size is compiled for
    size = int(_sent(np.asarray(len(text), np.int32)))
    return json.loads(_sent(np.frombuffer(text.ljust(size), np.uint8)).tobytes())


def told_arrays(tree: Tree) -> Tree:
    """What the first host has, in the bits; of the others only shapes and dtypes count."""
    if count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    raw = [jax.eval_shape(trees.raw, leaf) for leaf in leaves]
    sizes = [x.size * x.dtype.itemsize for x in raw]
    # as bytes: JAX broadcasts by a sum, in which -0.0 would become 0.0
    own = np.zeros(sum(sizes), np.uint8)
    if first():
        parts = [np.asarray(trees.raw(leaf)).tobytes() for leaf in leaves]
        own = np.frombuffer(b"".join(parts), np.uint8)
    parts = np.split(_sent(own), np.cumsum(sizes)[:-1])
    found = [
        jnp.asarray(np.frombuffer(part.tobytes(), x.dtype).reshape(x.shape))
        for part, x in zip(parts, raw, strict=True)
    ]
    keys = map(trees.is_key, leaves)  # of JAX's default kind, as in a checkpoint
    found = [jax.random.wrap_key_data(x) if key else x for x, key in zip(found, keys, strict=True)]
    return jax.tree.unflatten(structure, found)


def _sent(own: np.ndarray) -> np.ndarray:
    """The first host's array, of a shape that all know."""
    _state["progress"] += 1
    return np.asarray(multihost_utils.broadcast_one_to_all(own))


class Agree:
    """What all hosts do next, where each may wish it: the largest of their wishes of LAG calls ago.

    Every host calls it once a dispatch. The wishes go with the devices' work and are read when that
    is done, so that none waits; what is wished in the last LAG calls is not heard.
    """

    def __init__(self) -> None:
        self._sent: deque[jax.Array] = deque()
        if count() > 1:
            mesh = Mesh(np.array(devices()), ("data",))
            self._rows = NamedSharding(mesh, PartitionSpec("data"))
            whole = NamedSharding(mesh, PartitionSpec())
            self._largest = jax.jit(jnp.max, in_shardings=self._rows, out_shardings=whole)

    def __call__(self, wish: int) -> int:
        if count() == 1:
            return wish
        _state["progress"] += 1
        own = np.full(len(jax.local_devices()), wish, np.int32)
        self._sent.append(self._largest(jax.make_array_from_process_local_data(self._rows, own)))
        return int(self._sent.popleft()) if len(self._sent) > LAG else 0

    def forget(self) -> None:
        """Wishes that were not heard yet: what was agreed on is done. Each host forgets alike."""
        self._sent.clear()
