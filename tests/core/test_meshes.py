"""Meshes: a state that is divided among eight simulated devices ends where one device does, and its
checkpoints are those of any number of devices.
"""

import pytest

import jaxcnn
from jaxcnn.errors import ConfigError, Preempted
from jaxcnn.runs.train import go_on
from tests.simulated import found_by
from tests.tiny import Lines, TinyNet, stop_at, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a run that one device began, and was stopped."""
    folder = tmp_path_factory.mktemp("runs")
    e = tiny(mesh="fsdp=-1", model=TinyNet(dropout=0.0))
    with pytest.raises(Preempted):
        jaxcnn.train(e, folder / "from one", observe=[stop_at(7)], quiet=True)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return found_by("meshes_checks", folder, devices=8)


@pytest.mark.parametrize("mesh", ["data=8", "data=4,fsdp=2", "fsdp=-1"])
def test_a_divided_state_ends_where_that_of_one_device_does(found, mesh):
    assert found["differences"][mesh] <= 1e-6


def test_each_device_holds_its_part_and_check_says_so(found):
    held, whole = found["bytes"]["held"], found["bytes"]["whole"]
    assert len(held) == 8
    assert max(held) <= 1.05 * whole / 8
    # of the key, which is not counted there, each has eight bytes
    assert found["bytes"]["said"] == max(held) + 8


def test_parameters_are_gathered_and_activations_do_not_move(found):
    counts = found["collectives"]
    assert counts["all-gather"]
    assert counts["all-reduce"]
    assert counts["all-to-all"] == counts["collective-permute"] == 0


def test_runs_of_eight_devices_and_of_one_go_on_with_one_another(found, folder):
    runs, console = found["runs"], Lines()
    e = tiny(mesh="data=2,fsdp=-1", model=TinyNet(dropout=0.0))
    assert "stopped by a signal at step 7" in runs["stopped"]
    with pytest.raises(ConfigError, match="does not make up 1 devices"):
        go_on(e, folder / "stopped", {}, console=console)
    assert jaxcnn.open(folder / "eight", e).evaluate()["loss"] == pytest.approx(
        runs["eight"]["loss"], abs=1e-5
    )
    assert any("num_devices: 1 then, 8 now" in line for line in runs["from one"])
    ended = jaxcnn.open(folder / "from one").summary["eval"]
    assert ended["loss"] == pytest.approx(runs["eight"]["loss"], abs=1e-4)


def test_replicas_leave_a_divided_program_and_the_last_is_tested(found):
    (vmapped,), (unrolled,) = (
        [loss for loss in found["runs"][way] if loss is not None] for way in ("vmap", "unrolled")
    )
    assert vmapped == pytest.approx(unrolled, abs=1e-4)


def test_what_does_not_fit_is_refused_before_there_is_a_folder(found):
    runs = found["runs"]
    for name, text in {
        "count": "does not make up 8 devices",
        "rule": "the rule 'kernle' matches no array of the state",
        "axis": "axis -2 of params/Conv_0/kernel [3, 3, 1, 4] cannot be divided among 8 devices",
    }.items():
        assert text in runs[name][0]
        assert not runs[name][1]


def test_of_a_divided_state_that_diverges_the_layer_is_named(found):
    assert "in the output of layer 'BatchNorm_0'" in found["runs"]["diverged"]
