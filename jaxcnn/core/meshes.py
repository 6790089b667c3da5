"""How the devices of a run are arranged, and where its state and its batches lie on them.

The mesh "data=4,fsdp=2" is of eight devices in four groups of two. The rows of each batch are
divided among all eight. Each group holds the state once: its arrays are divided among the devices
of the group, XLA gathers the parameters where they are used, and sums the gradients to where they
lie (fully sharded data parallelism: S. Rajbhandari et al., "ZeRO: memory optimizations toward
training trillion parameter models", 2020, section 5; Y. Zhao et al., "PyTorch FSDP", 2023). The
numbers are those of one device, within rounding. On several hosts a group lies within a host.
"""

import contextlib
import re
from collections.abc import Generator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn.core import hosts, trees
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Device, Tree
from jaxcnn.errors import ConfigError, did_you_mean

AXES = ("data", "fsdp")
ROWS = PartitionSpec(AXES)  # of what has its rows along the first axis


_state: dict[str, Mesh | None] = {"mesh": None}


Rules = tuple[tuple[str, int | None], ...]


class Layout(NamedTuple):
    """The fields of an experiment that say where things lie: see `Experiment`."""

    mesh: str | None = None
    rules: Rules = ()

    @staticmethod
    def of(e: Experiment) -> "Layout":
        """That of an experiment."""
        return Layout(e.mesh, e.layout or ())


def parse(text: str | None, count: int) -> dict[str, int]:
    """{"data": devices, "fsdp": devices} of a mesh's text for `count` devices; -1 stands for what
    the others leave. None: all along "data".

    Errors: ConfigError for what is no such text, or does not make up `count`.
    """
    form = f'mesh={text!r}: must be like "data=4,fsdp=2" or "fsdp=-1"'
    sizes: dict[str, int] = {}
    for part in ("data=-1" if text is None else text).split(","):
        name, _, size = (word.strip() for word in part.partition("="))
        if name not in AXES:
            raise ConfigError(f"{form}; {name!r} is no axis{did_you_mean(name, AXES)}")
        if name in sizes or not re.fullmatch("-1|[1-9][0-9]{0,8}", size):
            raise ConfigError(f"{form}; each axis once, with a number of devices, or -1")
        sizes[name] = int(size)
    if list(sizes.values()).count(-1) > 1:
        raise ConfigError(f"{form}; at most one axis takes what the others leave (-1)")
    fixed = int(np.prod([size for size in sizes.values() if size > 0], dtype=np.int64))
    sizes = {name: count // fixed if size == -1 else size for name, size in sizes.items()}
    sizes = {name: sizes.get(name, 1) for name in AXES}
    if sizes["data"] * sizes["fsdp"] != count:
        raise ConfigError(
            f"mesh={text!r}: does not make up {count} devices; choose sizes whose product that is, "
            f'such as "data={count}", or -1 for one of them, or mesh=None'
        )
    return sizes


def arranged(layout: Layout, *, devices: list[Device] | None = None) -> Mesh:
    """The mesh of a layout over the devices that train together (or `devices`).

    Errors: ConfigError, see `parse`; for a group that lies on several hosts.
    """
    found = hosts.devices() if devices is None else devices
    sizes = parse(layout.mesh, len(found))
    if (len(found) // hosts.count()) % sizes["fsdp"]:
        raise ConfigError(
            f"mesh={layout.mesh!r}: fsdp={sizes['fsdp']} must divide the "
            f"{len(found) // hosts.count()} devices of each host: a group that holds the state "
            "together lies on one host"
        )
    return Mesh(np.array(found).reshape(sizes["data"], sizes["fsdp"]), AXES)


def specs(state: Tree, mesh: Mesh, rules: Rules) -> Tree:
    """The PartitionSpec of each array of a state (shapes will do), in a tree like it.

    Along "fsdp" an array's largest axis that the group's size divides is divided, of equal ones the
    last (a kernel's output channels); one that has none is whole on each device. `rules`: (regular
    expression over names such as "params/Conv_0/kernel" or "opt_state/0/mu/Conv_0/kernel", axis
    counted from the end: -1 for the last; None for whole); the first that is found counts.

    Errors: ConfigError for a rule that finds nothing, or names an axis that cannot be divided.
    """
    group = mesh.shape.get("fsdp", 1)
    leaves = trees.flatten(state)
    trees.check_rules("layout", rules, list(leaves), of="array of the state")
    found = [_spec(name, leaf, group, rules) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(state), found)


@contextlib.contextmanager
def dividing(mesh: Mesh) -> Generator[None]:
    """What is traced within has a state that `specs` divides."""
    before = _state["mesh"]
    _state["mesh"] = mesh if mesh.shape.get("fsdp", 1) > 1 else None
    try:
        yield
    finally:
        _state["mesh"] = before


def gathered(variables: Tree) -> Tree:
    """Variables of a divided state whole on each device, for a forward pass: left to itself XLA
    would divide the layers as the parameters are, and exchange activations, which are larger.
    """
    if _state["mesh"] is None:
        return variables
    return jax.lax.with_sharding_constraint(
        variables, NamedSharding(_state["mesh"], PartitionSpec())
    )


def bytes_per_device(state: Tree, layout: Layout, count: int) -> int:
    """Of a state (shapes will do) on each of `count` devices."""
    group = parse(layout.mesh, count)["fsdp"]
    leaves = trees.flatten(state)
    trees.check_rules("layout", layout.rules, list(leaves), of="array of the state")
    sizes = {name: x.size * x.dtype.itemsize for name, x in leaves.items()}
    return sum(
        size // group if any(_spec(name, leaves[name], group, layout.rules)) else size
        for name, size in sizes.items()
    )


def shardings(mesh: Mesh, tree_of_specs: Tree) -> Tree:
    """A tree of PartitionSpecs (or one) on a mesh."""
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731 (a tuple to JAX)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), tree_of_specs, is_leaf=is_spec)


def _spec(name: str, leaf: jax.Array, group: int, rules: Rules) -> PartitionSpec:
    """Of one array among a group of so many devices."""
    shape = () if trees.is_key(leaf) else leaf.shape
    for expression, axis in rules:
        if re.search(expression, name):
            if axis is None or group == 1:
                return PartitionSpec()
            if -axis > len(shape) or shape[axis] % group:
                raise ConfigError(
                    f"layout: ({expression!r}, {axis}): axis {axis} of {name} {list(shape)} cannot "
                    f"be divided among {group} devices; choose another, or None"
                )
            return _along(len(shape) + axis)
    fitting = [axis for axis, size in enumerate(shape) if size and size % group == 0]
    if group == 1 or not fitting:
        return PartitionSpec()
    return _along(max(fitting, key=lambda axis: (shape[axis], axis)))


def _along(axis: int) -> PartitionSpec:
    return PartitionSpec(*(None,) * axis, "fsdp")
