"""What one of several hosts does: here a process that takes itself for one of two. What arrives at
the other is what the first has sent.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn.core import hosts


@pytest.fixture
def host(monkeypatch):
    """Makes this process the host of that index, of two."""

    def become(index):
        monkeypatch.setitem(hosts._state, "count", 2)
        monkeypatch.setitem(hosts._state, "index", index)
        monkeypatch.setitem(hosts._state, "progress", 0)

    return become


@pytest.fixture
def sent(monkeypatch):
    """What the first host sends, in order; each next host is given that, in the same shapes."""
    found, given = [], []

    def send(own):
        if hosts.first():
            found.append(np.array(own))
            return found[-1]
        given.append(found[len(given) % len(found)])
        assert (own.shape, own.dtype) == (given[-1].shape, given[-1].dtype)
        return given[-1]

    monkeypatch.setattr(hosts, "_sent", send)
    return found


def sharding(*axes):
    return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec(*axes))


def test_a_process_is_alone_unless_it_is_said():
    assert (hosts.count(), hosts.index(), hosts.first()) == (1, 0, True)
    assert hosts.devices() == jax.local_devices()
    assert hosts.progress() == 0
    tree = {"a": np.ones(2)}
    assert hosts.told(tree) is hosts.told_arrays(tree) is hosts.local(tree) is tree
    assert [hosts.Agree()(wish) for wish in (0, 3, 0)] == [0, 3, 0]
    np.testing.assert_array_equal(hosts.own_rows(np.arange(4)), np.arange(4))
    assert hosts.progress() == 0, "none is waited for"


def test_together_all_hosts_count_as_one_machine_and_begin_anew(host):
    host(1)
    hosts._state["progress"] = 7
    seen = []

    def stopped():
        with hosts.together():
            seen.append((hosts.count(), hosts.index(), hosts.progress()))
            raise KeyError

    with pytest.raises(KeyError):
        stopped()
    assert seen == [(1, 0, 0)]
    assert (hosts.count(), hosts.index(), hosts.progress()) == (2, 1, 7)


def test_each_host_has_its_part_of_the_rows(host):
    rows = np.arange(24).reshape(3, 8)
    for index, part in ((0, rows[:, :4]), (1, rows[:, 4:])):
        host(index)
        assert hosts.first() == (index == 0)
        np.testing.assert_array_equal(hosts.own_rows(rows), part)
    assert hosts.devices() == jax.devices()


def test_a_batch_lies_where_the_devices_want_it(host):
    batch = {"image": np.arange(8.0), "label": [1, 2, 3, 4]}
    rows = sharding("data")
    alone = hosts.put({"image": batch["image"]}, rows)
    assert alone["image"].sharding == rows
    assert hosts.progress() == 0
    host(1)
    found = hosts.put(batch, rows)
    for name, x in batch.items():
        assert found[name].sharding == rows
        np.testing.assert_array_equal(found[name], x)
    assert hosts.progress() == 1


@pytest.mark.parametrize("together", [False, True], ids=["alone", "of two"])
def test_a_tree_is_laid_out_as_it_is_said(host, together):
    if together:
        host(0)
    rows, whole = sharding("data"), sharding()
    key = jax.random.key(3, impl="rbg")
    tree = {"a": np.arange(4.0), "b": {"key": key, "n": jnp.int32(7)}}
    for layout in (whole, {"a": rows, "b": {"key": whole, "n": whole}}):
        found = hosts.everywhere(tree, layout)
        assert found["a"].sharding == (whole if layout is whole else rows)
        assert found["b"]["n"].sharding == found["b"]["key"].sharding == whole
        np.testing.assert_array_equal(found["a"], tree["a"])
        assert int(found["b"]["n"]) == 7
        assert found["b"]["key"].dtype == key.dtype
        np.testing.assert_array_equal(
            jax.random.key_data(found["b"]["key"]), jax.random.key_data(key)
        )
    if not together:
        again = hosts.everywhere(found, {"a": rows, "b": {"key": whole, "n": whole}})
        assert again["a"] is found["a"], "what is laid out so already stays"
        assert hosts.everywhere(found, whole)["a"].sharding == whole


def test_what_lies_whole_on_this_host_stays(host):
    host(1)
    tree = {"a": jnp.ones(3)}
    assert hosts.local(tree)["a"] is tree["a"]


@pytest.mark.parametrize("value", [
    None, 3, "a text", {"a": [1, 2.5, None], "ä": "ö"}, "x" * (hosts.JSON_BYTES - 2), "x" * 9000
], ids=lambda value: str(value)[:30])  # fmt: skip
def test_what_the_first_host_has_is_told_to_all(host, sent, value):
    for index in (0, 1):
        host(index)
        assert hosts.told(value if index == 0 else "another" * 5000) == value
    assert sent[-1].size % hosts.JSON_BYTES == 0, "each size is compiled for"
    assert 0 < sent[-1].size < 9000 + 2 * hosts.JSON_BYTES


def test_arrays_of_the_first_host_arrive_in_their_bits(host, sent):
    tree = {
        "zeros": jnp.asarray([0.0, -0.0, jnp.nan, jnp.inf]),
        "low": jnp.asarray([[1.5], [-2.0]], jnp.bfloat16),
        "key": jax.random.split(jax.random.key(5), 2),
        "n": jnp.int32(-7),
        "flag": jnp.asarray([True, False]),
        "empty": jnp.zeros((0, 3)),
        "last": jnp.asarray([3], jnp.uint8),
    }
    other = {**jax.tree.map(lambda x: x * 0, {k: v for k, v in tree.items() if k not in
             ("key", "flag")}), "key": jax.random.split(jax.random.key(6), 2),
             "flag": jnp.asarray([False, False])}  # fmt: skip
    for index, own in ((0, tree), (1, other)):
        host(index)
        found = hosts.told_arrays(own)
        assert jax.tree.structure(found) == jax.tree.structure(tree)
        for name, x in tree.items():
            assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype)
            raw = (jax.random.key_data(a) if name == "key" else a for a in (found[name], x))
            a, b = (np.asarray(a).tobytes() for a in raw)
            assert a == b, name
    assert len(sent) == 1


def test_what_all_hosts_do_is_counted(host):
    """So that one that lags behind is waited for."""
    host(0)
    assert hosts.told({"a": 1}) == {"a": 1}
    assert hosts.progress() == 2, "a size and a text"
    np.testing.assert_array_equal(hosts.told_arrays([jnp.ones(2)])[0], [1, 1])
    assert hosts.progress() == 3
    hosts.Agree()(1)
    assert hosts.progress() == 4


def test_a_wish_is_heard_two_calls_later(host):
    """So that no step waits for it; what was agreed on is forgotten."""
    host(0)
    agree = hosts.Agree()
    assert [agree(wish) for wish in (0, 3, 0, 5, 0, 0, 1)] == [0, 0, 0, 3, 0, 5, 0]
    agree.forget()
    assert [agree(wish) for wish in (7, 0, 0)] == [0, 0, 7]
