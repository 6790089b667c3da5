"""Data parallelism and replicas on four simulated devices equal one device: 10 SGD steps, at most
1e-6 on weights and loss.
"""

import pytest

from tests.simulated import found_by


@pytest.fixture(scope="module")
def results():
    return found_by("transforms_checks", devices=4)


@pytest.mark.parametrize(
    ("case", "devices"),
    [("plain", 2), ("plain", 4), ("dropout and augmentation", 4), ("accumulation", 4)],
)
def test_devices_change_nothing(results, case, devices):
    assert results["devices"] == 4
    assert results[f"{case}, {devices} devices"] <= 1e-6
    assert results[f"{case}, {devices} devices, loss"] <= 1e-6


@pytest.mark.parametrize("way", ["replicas", "replicas x data", "devices"])
@pytest.mark.parametrize("replica", range(4))
def test_replica_equals_its_solo_run(results, way, replica):
    assert results[f"{way}, replica {replica}"] <= 1e-6


def test_one_replica_per_device(results):
    assert results["devices used"] == 4
    assert results["devices, counts"] == [20] * 4


def test_replicas_share_evaluation_batches(results):
    assert results["replicas, counts"] == results["replicas x data, counts"] == [20] * 4


def test_a_batch_that_cannot_be_split_is_refused(results):
    assert "batch_size" in results["uneven"]
    for verb in ("check", "train", "sweep"):
        assert "batch_size=6: cannot be split evenly over 4" in results[f"uneven, {verb}"]
        assert "choose 4 or 8" in results[f"uneven, {verb}"]
    assert results["uneven, left"] == []


def test_a_step_of_several_devices_that_is_compiled_again_is_refused(results):
    assert "the training step was compiled 2 times in 2 steps" in results["changing"]


@pytest.mark.parametrize("way", ["vmap", "devices"])
def test_a_sweep_over_devices_ends_where_its_solo_runs_do(results, way):
    assert results[f"sweep by {way}, loss"] <= 1e-5


def test_replicas_that_a_rung_leaves_move_to_other_devices(results):
    """Five of ten, of which one device had three at most."""
    found = results["rungs"]
    assert [verdict for verdict, _ in found["devices"]] == [verdict for verdict, _ in found["loop"]]
    assert sum(verdict.startswith("dropped") for verdict, _ in found["devices"]) >= 5
    losses = [[loss for _, loss in found[way]] for way in ("devices", "loop")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_what_check_says_of_many_devices_is_what_is_compiled_for_them(results):
    """Memory of each, and the bytes that are summed: those of the gradients, and a little for
    BatchNorm and the numbers that are logged.
    """
    paper = results["paper"]
    assert paper["batch"] == 16
    assert paper["step_bytes"] == pytest.approx(results["compiled bytes"], rel=0.1)
    assert results["param_bytes"] <= results["summed bytes"] <= 1.1 * results["param_bytes"]
    assert paper["sent_bytes"] == 2 * 3 * results["param_bytes"] // 4  # a ring of four
