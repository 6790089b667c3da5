"""What `check` says of a step's operations, memory and time."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.commands import check
from jaxcnn.commands._main import main
from jaxcnn.core.memory import format_bytes
from jaxcnn.core.program import make_program, supervised
from jaxcnn.data import augment
from jaxcnn.runs import cost
from jaxcnn.runs.check import pre_flight
from jaxcnn.runs.cost import measure_step, step_flops
from jaxcnn.runs.scaling import device_share
from jaxcnn.tasks.classification import Classification
from tests.tiny import TinyNet, tiny


def bytes_of(tree):
    leaves = jax.tree.leaves(tree)
    keys = [jax.random.key_data(x) for x in leaves if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    plain = [x for x in leaves if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return sum(x.nbytes for x in [*keys, *plain])


def test_the_memory_is_that_of_the_true_state_and_batch_and_what_the_step_needs_besides():
    found = {}
    for width in (4, 256):
        e = tiny(model=TinyNet(width=width), batch_size=16)
        source = e.data.open("train")
        facts, measured = pre_flight(e), measure_step(e, steps=12)
        state = jax.jit(make_program(e, steps=12).init)(jax.random.key(0))
        batch = source.take(np.arange(16))
        assert facts["state_bytes"] == bytes_of(state)
        assert facts["batch_bytes"] == sum(x.nbytes for x in batch.values())
        arguments = facts["state_bytes"] + facts["batch_bytes"]
        # donated: the next state takes the place of the old; besides, one set of activations
        activations = 16 * 6 * 6 * width * 4
        assert arguments + activations <= measured["step_bytes"]
        assert measured["step_bytes"] <= arguments + 30 * activations + 200_000
        assert measured["step_seconds"] > 0
        assert 1 <= measured["steps_timed"] <= cost.TIMED
        assert measured["compile_seconds"] > measured["step_seconds"]
        found[width] = measured["step_bytes"]
    assert found[256] > 10 * found[4]


def test_the_memory_has_the_state_where_that_is_most_of_it():
    """Of a million weights with two moments and an average each, and one example."""
    task = Classification(num_classes=1000)
    e = tiny(model=TinyNet(width=64, num_classes=1000), task=task, batch_size=1)
    facts = pre_flight(e)
    assert facts["state_bytes"] > 4 * 4 * 1_000_000
    assert measure_step(e, steps=12)["step_bytes"] > facts["state_bytes"] + facts["batch_bytes"]


def test_operations_follow_from_the_layers_and_are_unknown_of_an_objective_of_ones_own():
    # a 3 x 3 convolution that keeps the size, and a linear layer after pooling
    macs = 8 * 8 * 9 * 1 * 4 + 4 * 4 * 4 * 3
    assert step_flops(tiny()) == 3 * 2 * macs * 8
    assert step_flops(dataclasses.replace(tiny(), accumulate=2)) == step_flops(tiny())
    own = dataclasses.replace(tiny(), objective=lambda *args: supervised(*args))
    assert step_flops(own) is None


def test_operations_are_those_at_the_size_that_the_step_is_made_at():
    smaller = partial(augment.crop_resized, size=(4, 4))
    macs = 4 * 4 * 9 * 1 * 4 + 2 * 2 * 4 * 3
    assert step_flops(tiny(augment=(smaller,))) == 3 * 2 * macs * 8


def test_the_words_say_what_is_computed_and_what_was_measured():
    e = tiny()
    facts = {**pre_flight(e), "step_flops": step_flops(e)}
    text = "\n".join(check.cost_lines(facts, batch_size=8))
    assert f"{facts['params']:,} parameters ({format_bytes(facts['param_bytes'])})" in text
    assert "by formula" in text
    assert "--compile" in text
    measured = {"step_bytes": 3 << 20, "step_seconds": 0.5, "steps_timed": 5, "compile_seconds": 2}
    text = "\n".join(check.cost_lines({**facts, **measured, "steps": 600}, batch_size=8))
    assert "memory of a step: 3.0 MiB" in text
    assert "0.5 s (measured: median of 5 on blank examples, after 2.0 s" in text
    assert "600 steps: 5 min, without reading data" in text
    text = "\n".join(check.cost_lines({**facts, "step_flops": None}, batch_size=8))
    assert "not known" in text
    program = {"state_bytes": 10, "batch_bytes": 5, "step_flops": None}
    assert "training state 10 bytes" in check.cost_lines(program, batch_size=1)[0]


@pytest.mark.parametrize(
    "count, text",
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"),
     (5 << 40, "5,120.0 GiB")],
)  # fmt: skip
def test_bytes_in_words(count, text):
    assert format_bytes(count) == text


def test_one_device_of_many_is_the_step_itself_and_a_link_is_what_a_sum_takes():
    facts = {**pre_flight(tiny(batch_size=8)), "step_flops": 800, "step_bytes": 10**6}
    facts |= {"param_bytes": 10**9, "step_seconds": 0.8}
    one = device_share(facts, 1, batch_size=8, link=10.0)
    assert (one["step_bytes"], one["step_flops"], one["batch"]) == (10**6, 800, 8)
    assert (one["sent_bytes"], one["step_seconds"], one["efficiency"]) == (0, 0.8, 1.0)
    # a ring of two: half of the gradients there, the other half's sums back; 1 GB at 10 GB/s
    two = device_share(facts, 2, batch_size=8, link=10.0)
    assert (two["sent_bytes"], two["sum_seconds"], two["step_flops"]) == (10**9, 0.1, 400)
    assert two["step_seconds"] == pytest.approx(0.4 + 0.1)
    assert two["efficiency"] == pytest.approx(0.8)
    unknown = {"state_bytes": 10, "batch_bytes": 8, "step_flops": None}
    share = device_share(unknown, 8, batch_size=8, link=1.0)
    assert (share["state_bytes"], share["batch_bytes"], share["efficiency"]) == (10, 1, None)


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ("--devices", "1,3", "--compile"),
            "over 3 devices, which train a run together",
        ),
        (("--devices", "9" * 5000), "whole numbers from 1"),
        (("--devices", "1,,2"), "whole numbers from 1"),
        (("--devices", "0"), "whole numbers from 1"),
        (("--devices", "2", "--link", "nan"), "a number of GB/s above 0"),
        (("--link", "3"), "say how many"),
    ],
)
def test_devices_that_are_none_are_refused(words, message, capsys, monkeypatch):
    """Before anything is compiled."""
    monkeypatch.setattr("jaxcnn.runs.cost.measure_step", lambda *_, **__: pytest.fail("compiled"))
    assert main(["check", "digits_lenet5", "--no-data", *words]) == 2
    assert message in capsys.readouterr().err


def test_check_prints_what_each_of_many_devices_would_do(capsys):
    words = ["check", "digits_lenet5", "--no-data", "--devices", "1,8"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "50 GB/s (assumed; --link)" in text
    assert "the time of a step: --compile" in text
    assert main([*words, "--link", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [share["devices"] for share in found["on_devices"]] == [1, 8]
    for share in found["on_devices"]:  # whole examples, and written as such
        assert share["batch"] * share["devices"] == found["rendered"]["batch_size"]
        assert isinstance(share["batch"], int)
    assert found["link"] == 10
    lines = "\n".join(check.device_lines(found["on_devices"], link="10 GB/s"))
    sent = found["on_devices"][1]["sent_bytes"]
    assert format_bytes(sent) in lines
    assert f"{sent / 1e10:.2g} s" in lines


def test_check_says_what_each_device_holds_of_a_state_that_a_mesh_divides(capsys):
    words = ["check", "digits_lenet5", "--no-data", "--devices", "1,8", "batch_size=64"]
    assert main([*words, "--json"]) == 0
    plain, *_ = json.loads(capsys.readouterr().out)["on_devices"]
    assert main([*words, "mesh=fsdp=-1", "--json"]) == 0
    one, eight = json.loads(capsys.readouterr().out)["on_devices"]
    assert plain == one
    assert eight["divided"]
    # of LeNet-5's 60,000 parameters those of C5 and F6 fit, and their optimizer's numbers
    assert one["state_bytes"] / 8 < eight["state_bytes"] < one["state_bytes"] / 4
    assert main([*words, "mesh=fsdp=-1"]) == 0
    assert "every device holds its part of the state" in capsys.readouterr().out
    assert main([*words, "mesh=data=3"]) == 2
    assert "does not make up" in capsys.readouterr().err
