"""Where the arrays of a state lie, by hand, without devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from jaxcnn.core import hosts, meshes
from jaxcnn.core.meshes import Layout
from jaxcnn.errors import ConfigError
from tests.tiny import tiny

WHOLE = PartitionSpec()


def mesh_of(data, fsdp):
    return AbstractMesh((data, fsdp), meshes.AXES)


def shape(*sizes, dtype=np.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


@pytest.mark.parametrize(
    ("text", "count", "sizes"),
    [
        (None, 8, (8, 1)),
        (None, 1, (1, 1)),
        ("data=8", 8, (8, 1)),
        ("data=4,fsdp=2", 8, (4, 2)),
        ("fsdp=2,data=4", 8, (4, 2)),
        ("fsdp=8", 8, (1, 8)),
        ("fsdp=-1", 8, (1, 8)),
        ("fsdp=-1,data=1", 8, (1, 8)),
        (" fsdp = 2 , data = -1 ", 8, (4, 2)),
        ("data=10,fsdp=-1", 20, (10, 2)),
    ],
)
def test_a_mesh_is_read(text, count, sizes):
    assert meshes.parse(text, count) == dict(zip(meshes.AXES, sizes, strict=True))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fdsp=2", "'fdsp' is no axis.*did you mean 'fsdp'"),
        ("", "'' is no axis"),
        *((text, "with a number of devices") for text in ("data=0", "data", "fsdp=-2", "data=08")),
        *((text, "with a number of devices") for text in ("data=2x", "data=1.0", "data=")),
        ("data=2,data=4", "each axis once"),
        ("data=-1,data=-1", "each axis once"),
        ("data=-1,fsdp=-1", "at most one axis"),
        *((text, "does not make up 8 devices") for text in ("data=3", "fsdp=16", "data=4,fsdp=4")),
        *((text, "does not make up 8 devices") for text in ("data=3,fsdp=-1", "data=16,fsdp=-1")),
        ("data=4", "does not make up 8 devices"),
        ("data=8,fsdp=8", "does not make up 8 devices"),
        *((f"fsdp={9 * 10**more}", "with a number of devices") for more in (9, 22)),
        ("data=" + "9" * 5000, "with a number of devices"),
    ],
)
def test_what_is_no_mesh_of_eight_is_refused(text, says):
    with pytest.raises(ConfigError, match=says):
        meshes.parse(text, 8)


def test_the_layout_of_an_experiment():
    assert Layout.of(tiny()) == Layout(None, ())
    rules = (("kernel", -1),)
    assert Layout.of(tiny(mesh="fsdp=2", layout=rules)) == Layout("fsdp=2", rules)


def test_devices_are_arranged_group_by_group():
    found = meshes.arranged(Layout("data=2,fsdp=3"), devices=list("abcdef"))
    assert found.axis_names == ("data", "fsdp")
    assert found.devices.tolist() == [["a", "b", "c"], ["d", "e", "f"]]
    assert meshes.arranged(Layout()).devices.tolist() == [[d] for d in jax.local_devices()]


def test_a_group_lies_on_one_host(monkeypatch):
    monkeypatch.setitem(hosts._state, "count", 2)
    for text in ("data=4", "data=2,fsdp=2"):
        meshes.arranged(Layout(text), devices=list("abcd"))
    with pytest.raises(ConfigError, match="fsdp=4 must divide the 2 devices of each host"):
        meshes.arranged(Layout("fsdp=4"), devices=list("abcd"))


STATE = {
    "kernel": shape(3, 3, 8, 16),
    "square": shape(3, 3, 8, 8),
    "tall": shape(16, 10),
    "first": shape(8, 4),
    "bias": shape(8),
    "odd": shape(7, 9),
    "empty": shape(0, 7),
    "number": shape(),
}


def parts(found):
    """{name: the axis that is divided}."""
    for spec in found.values():
        assert set(spec) <= {None, "fsdp"}
        assert len(spec) == 0 or spec[-1] == "fsdp"
    return {name: len(spec) - 1 for name, spec in found.items() if len(spec)}


def test_the_largest_axis_that_fits_is_divided_of_equal_ones_the_last():
    found = parts(meshes.specs(STATE, mesh_of(1, 4), ()))
    assert found == {"kernel": 3, "square": 3, "tall": 0, "first": 0, "bias": 0}
    found = parts(meshes.specs(STATE, mesh_of(4, 2), ()))
    assert found == {"kernel": 3, "square": 3, "tall": 0, "first": 0, "bias": 0}
    assert parts(meshes.specs(STATE, mesh_of(4, 1), ())) == {}
    assert parts(meshes.specs(STATE, AbstractMesh((4,), ("data",)), ())) == {}
    assert parts(meshes.specs({"a": shape(4, 2)}, mesh_of(1, 2), ())) == {"a": 0}


def test_the_first_rule_that_is_found_in_a_name_counts():
    rules = (("tall", None), ("square", -2), ("kernel|tall", -1), ("first", -2))
    found = parts(meshes.specs({"opt": STATE}, mesh_of(1, 4), rules)["opt"])
    assert found == {"square": 2, "kernel": 3, "first": 0, "bias": 0}
    assert parts(meshes.specs(STATE, mesh_of(4, 1), (("odd", -1),))) == {}  # nothing to divide
    assert parts(meshes.specs({"odd": shape(7, 2)}, mesh_of(1, 2), (("odd", -1),))) == {"odd": 1}


@pytest.mark.parametrize("rule, says", [
    (("odd", -1), r"\('odd', -1\): axis -1 of odd \[7, 9\] cannot be divided among 4 devices"),
    (("bias", -2), r"axis -2 of bias \[8\] cannot be divided"),
    (("number", -1), r"axis -1 of number \[\] cannot be divided"),
    (("kernle", -1), "layout: the rule 'kernle' matches no array of the state"),
])  # fmt: skip
def test_a_rule_that_cannot_be_kept_is_refused(rule, says):
    with pytest.raises(ConfigError, match=says):
        meshes.specs(STATE, mesh_of(1, 4), (rule,))
    with pytest.raises(ConfigError, match=says):
        meshes.bytes_per_device(STATE, Layout("fsdp=4", (rule,)), 4)


def test_a_key_is_whole_on_each_device():
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 8))
    assert meshes.specs({"rng": keys}, mesh_of(1, 8), ()) == {"rng": WHOLE}


def test_bytes_on_each_device():
    """What is divided counts by its part, what is not as a whole, in its dtype."""
    state = {"a": shape(4, 10), "b": shape(7), "c": shape(2, 8, dtype=np.int8)}
    assert meshes.bytes_per_device(state, Layout("data=2,fsdp=2"), 4) == 80 + 28 + 8
    assert meshes.bytes_per_device(state, Layout(), 4) == 160 + 28 + 16
    rules = (("a", None),)
    assert meshes.bytes_per_device(state, Layout("fsdp=-1", rules), 2) == 160 + 28 + 8


def test_the_specs_of_a_tree_on_a_mesh():
    mesh = meshes.arranged(Layout())
    assert meshes.shardings(mesh, WHOLE) == NamedSharding(mesh, WHOLE)
    rows = PartitionSpec("data")
    found = meshes.shardings(mesh, {"a": rows, "b": {"c": WHOLE}})
    assert found == {"a": NamedSharding(mesh, rows), "b": {"c": NamedSharding(mesh, WHOLE)}}


def test_variables_are_gathered_while_a_state_is_divided():
    tree = {"a": jnp.ones(4)}

    def constrained():
        def gathered(tree):
            return meshes.gathered(tree)

        return "sharding_constraint" in str(jax.make_jaxpr(gathered)(tree))

    assert meshes.gathered(tree) is tree
    for mesh in (mesh_of(4, 1), AbstractMesh((4,), ("data",))):
        with meshes.dividing(mesh):
            assert meshes.gathered(tree) is tree
    with meshes.dividing(mesh_of(2, 2)):
        assert constrained()
        with meshes.dividing(mesh_of(4, 1)):
            assert not constrained()
        assert constrained()
    with pytest.raises(KeyError), meshes.dividing(mesh_of(1, 2)):
        raise KeyError
    assert meshes.gathered(tree) is tree
