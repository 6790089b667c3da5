"""Which replicas stop before the last step, and what the others go on with; what ends a run."""

import dataclasses
import time
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.dataset import indices_of_steps
from jaxcnn.errors import DivergedError, ResourceError
from jaxcnn.runs import stopping
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.group import Group
from jaxcnn.runs.ways import Bundle, Way
from tests.tiny import arrays, tiny


class State(NamedTuple):
    """What the loop needs of a state, and one number."""

    step: np.ndarray
    live: np.ndarray
    x: np.ndarray


class History:
    """Evaluations with these accuracies."""

    def __init__(self, *values):
        self.values = values

    def evaluations(self):
        return [{"metrics": {"accuracy": value}} for value in self.values]


@dataclasses.dataclass(eq=False)
class Replica:
    """What stopping asks of one."""

    index: int
    history: History
    checkpoints: Checkpoints = None
    point: dict = dataclasses.field(default_factory=dict)
    stopped: dict | None = None
    experiment: object = None
    folder: str = "run"

    def to_file(self, state):
        return {"x": state.x, "live": state.live}


class Loose(Way):
    """A way whose bundles compile nothing."""

    def resized(self, replicas):
        return Loose(self.kind, Way.from_text(self.text(), replicas).sizes)

    def bundles(self, program, *, layout):
        kinds = {"loop": "solo", "vmap": "vmap"}
        return [Bundle(kinds[self.kind], size, None, None) for size in self.sizes]


def group_of(*replicas, way="loop", step=4, rungs=(), said=None):
    group = Group(
        **{"experiment": tiny(), "program": None, "replicas": [*replicas], "steps": 12},
        **{"way": Loose(way, ()), "dispatch": 1, "train": [0] * 50, "eval": []},
        **{"say": [].append if said is None else said.append, "rungs": dict(rungs), "step": step},
    )
    group.take([*replicas], [
        State(jnp.int32(step), jnp.bool_(True), jnp.float32(r.index)) for r in replicas
    ])  # fmt: skip
    told = []
    group.tell = lambda kind, replica, record, **more: told.append((kind, replica.index, record))
    group.told_of = told
    return group


def live(group):
    return [bool(state.live) for state in group.solo_states()]


def numbers(group):
    return [float(state.x) for state in group.solo_states()]


@pytest.mark.parametrize("way", ["loop", "vmap"])
def test_a_replica_that_stops_is_frozen_and_told_and_the_others_go_on(way):
    replicas = [Replica(i, History(), point={"seed": i}) for i in (0, 3, 5)]
    group = group_of(*replicas, way=way)
    stopping.stop_replica(group, 1, "stopped early", at=2, more="said")
    assert live(group) == [True, False, True]
    assert numbers(group) == [0.0, 3.0, 5.0]
    assert stopping.going_on(group) == [replicas[0], replicas[2]]
    record = replicas[1].stopped
    wanted = {"kind": "stop", "step": 4, "replica": 3, "why": "stopped early", "at": 2,
              "more": "said", "point": {"seed": 3}}  # fmt: skip
    assert wanted.items() <= record.items()
    assert record["epoch"] == 4 * 8 / 50
    assert group.told_of == [("stop", 3, record)]


@pytest.mark.parametrize("full", [False, True])
def test_a_replica_that_diverged_is_saved_as_it_was_before(tmp_path, full):
    """Alive, so that it can be gone on with; of a program of one's own no layer is known."""

    class Full(Checkpoints):
        def save(self, state, *, step, best=False):
            raise ResourceError("no space left")

    place = (Full if full else Checkpoints)(tmp_path)
    one, said = Replica(0, History(), place, experiment=tiny()), []
    group = group_of(one, Replica(1, History()), said=said)
    group.states[0] = group.states[0]._replace(live=jnp.bool_(False), step=jnp.int32(3))
    stopping.diverge(group, 0)
    assert (one.stopped["why"], one.stopped["at"]) == ("diverged", 3)
    assert one.stopped["where"] == "the experiment's own program, so no layer is known"
    assert live(group) == [False, True]
    if full:
        assert said == ["warning: no space left"]
    else:
        template = {"x": np.float32(0), "live": np.bool_(0)}
        state, step = place.restore(template)
        assert (step, bool(state["live"]), float(state["x"])) == (3, True, 0.0)


def test_the_layer_of_a_divergence_is_looked_for_in_the_batch_of_its_step(tmp_path, monkeypatch):
    e, asked = tiny(seed=7), []
    monkeypatch.setattr(stopping, "State", State)  # whose layers are known

    def first_non_finite(*what):
        asked.append(what)
        return "in Conv_0"

    monkeypatch.setattr(stopping, "first_non_finite", first_non_finite)
    one = Replica(0, History(), Checkpoints(tmp_path), experiment=e)
    group = group_of(one)
    group.train = e.data.open("train")
    group.states[0] = group.states[0]._replace(step=jnp.int32(3))
    stopping.diverge(group, 0)
    assert one.stopped["where"] == "in Conv_0"
    ((given, state, batch),) = asked
    assert (given, int(state.step)) == (e, 3)
    rows = indices_of_steps(7, 3, 4, size=50, batch_size=8)[0]
    np.testing.assert_array_equal(batch["label"], arrays(50)["label"][rows])
    own = dataclasses.replace(e, program=lambda e, steps: None)
    one.experiment = own
    stopping.diverge(group, 0)
    assert one.stopped["where"].startswith("the experiment's own program")


def test_training_time_goes_on_from_that_of_the_processes_before():
    replica = Replica(0, History())
    group = group_of(replica)
    before = time.monotonic()
    group.started = before - 1000.0  # so long was trained before
    first, told = group.seconds(), group.record("train", replica)["seconds"]
    assert 1000.0 <= first <= told <= 1000.0 + time.monotonic() - before


def ranked(*values):
    return [Replica(i, History(*v)) for i, v in enumerate(values)]


def test_at_a_rung_the_best_go_on_in_their_order():
    """By their last evaluations; those without one, or stopped before, are the last."""
    replicas, said = ranked((0.9, 0.1), (0.5,), (), (0.2, 0.7), (0.99,), (0.6,)), []
    replicas[4].stopped = {"why": "stopped early", "at": 1}
    group = group_of(*replicas, rungs={2: 5, 4: 3, 8: 1}, said=said)
    stopping.drop_due(group)
    assert group.active == [replicas[1], replicas[3], replicas[5]]
    assert numbers(group) == [1.0, 3.0, 5.0]
    assert live(group) == [True] * 3
    assert said == ["rung at step 4: 3 of 6 replicas go on: [1, 3, 5]"]
    assert [(index, record["why"], record["at"]) for _, index, record in group.told_of] == [
        *((0, "dropped at a rung", 4), (2, "dropped at a rung", 4)),
    ]
    assert replicas[4].stopped == {"why": "stopped early", "at": 1}  # as it was
    assert {i: float(state.x) for i, state in group.last_states().items()} == {
        **{i: float(i) for i in (1, 3, 5)},
        4: 4.0,  # had ended before: to be scored, and told of its end
    }
    stopping.drop_due(group)
    assert len(group.active) == 3
    group.step = 9
    stopping.drop_due(group)
    assert group.active == [replicas[3]]


@pytest.mark.parametrize("step, rungs", [(3, {4: 1}), (4, {}), (4, {4: 2}), (4, {4: 5})])
def test_before_a_rung_or_with_few_enough_all_go_on(step, rungs):
    replicas, said = ranked((0.1,), (0.2,)), []
    group = group_of(*replicas, step=step, rungs=rungs, said=said)
    stopping.drop_due(group)
    assert (group.active, said) == (replicas, [])


def test_a_run_is_lost_where_all_of_it_diverged_or_its_last_save_failed():
    stop = {"why": "diverged", "at": 7, "where": "in Conv_0"}
    group = group_of(*ranked((0.1,), (0.2,)))
    stopping.raise_if_lost(group)
    group.replicas[0].stopped = stop
    stopping.raise_if_lost(group)
    group.replicas[1].stopped = {"why": "stopped early", "at": 3}
    stopping.raise_if_lost(group)
    group.failed_save = ResourceError("full")
    with pytest.raises(ResourceError, match="full"):
        stopping.raise_if_lost(group)
    group.replicas[1].stopped = {**stop, "at": 9}
    with pytest.raises(DivergedError, match=r"all 2 replicas diverged \(steps 7, 9\); lower opt"):
        stopping.raise_if_lost(group)
    group.replicas = group.replicas[:1]
    with pytest.raises(DivergedError, match=r"not finite at step 7 \(in Conv_0\); .* in run; low"):
        stopping.raise_if_lost(group)
