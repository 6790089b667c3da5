"""Ways to run replicas: what their names mean, and which is chosen where the seconds are given."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.core.meshes import Layout
from jaxcnn.core.program import make_program
from jaxcnn.errors import ConfigError, ResourceError
from jaxcnn.runs import ways
from jaxcnn.runs.ways import Bundle, Trial, Way, by_bundle, candidates, choose, measure
from tests.tiny import tiny

SPLIT = Layout(mesh="data=1")


@pytest.mark.parametrize(
    "text, replicas, kind, sizes",
    [
        ("loop", 3, "loop", (1, 1, 1)),
        ("vmap", 3, "vmap", (3,)),
        ("unrolled", 3, "unrolled", (3,)),
        ("1", 3, "chunks", (1, 1, 1)),
        ("2", 5, "chunks", (2, 2, 1)),
        ("2", 4, "chunks", (2, 2)),
        ("4", 3, "chunks", (3,)),
        ("devices", 3, "devices", (3,)),  # of which there is one here
    ],
)
def test_a_ways_name_says_how_replicas_are_bundled(text, replicas, kind, sizes):
    way = Way.from_text(text, replicas)
    assert way == Way(kind, sizes)
    items = list(range(replicas))
    parts = list(by_bundle(sizes, items))
    assert [len(part) for part in parts] == list(sizes)
    assert [item for part in parts for item in part] == items
    if text != "4":  # of chunks larger than the replicas, the chunk that there is
        assert way.text() == text
        assert way.resized(7) == Way.from_text(text, 7)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "vmpa", "²"])
def test_what_names_no_way_is_refused(text):
    with pytest.raises(ConfigError, match=f"--replicas-by '{text}': must be a chunk size or one"):
        Way.from_text(text, 3)


def test_several_hosts_split_rows_and_are_told_how_replicas_run(monkeypatch):
    monkeypatch.setattr(ways.hosts, "count", lambda: 2)
    with pytest.raises(ConfigError, match="leaves no rows to several hosts"):
        Way.from_text("devices", 3)
    assert Way.from_text("vmap", 3) == Way("vmap", (3,))
    with pytest.raises(ConfigError, match="several hosts: say how replicas run"):
        choose(trial_of())
    assert choose(trial_of(), forced="vmap") == Way("vmap", (3,))
    assert choose(trial_of(replicas=1)) == Way("loop", (1,))


@pytest.mark.parametrize(
    "text, kinds",
    [
        ("loop", ["solo"] * 5),
        ("vmap", ["vmap"]),
        ("unrolled", ["unrolled"]),
        ("2", ["vmap", "vmap", "solo"]),
        ("devices", ["vmap"]),
    ],
)
def test_equal_bundles_share_what_is_compiled(text, kinds):
    way = Way.from_text(text, 5)
    bundles = way.bundles(make_program(tiny(), steps=1))
    assert [bundle.kind for bundle in bundles] == kinds
    assert [bundle.count for bundle in bundles] == list(way.sizes)
    for a in bundles:
        for b in bundles:
            assert (a.single is b.single) == (a.many is b.many) == (a.count == b.count)
        assert a.device == (jax.devices()[0] if text == "devices" else None)


def test_a_way_by_devices_leaves_no_place_for_a_layout(monkeypatch):
    program = make_program(tiny(), steps=1)
    with pytest.raises(ConfigError, match="a mesh or layout has no place"):
        Way.from_text("devices", 3).bundles(program, layout=SPLIT)
    asked = []
    monkeypatch.setattr(ways.transforms, "on_devices", lambda p, **options: asked.append(options))
    Way.from_text("2", 3).bundles(program, layout=SPLIT)
    # a step a dispatch, then many: [B], [B] of many; with one more axis of replicas
    axes = [options["axes"] for options in asked]
    assert axes == [1, 2, 0, 1]
    assert all(options["layout"] == SPLIT for options in asked)
    Way.from_text("devices", 3).bundles(program)
    assert len(asked) == 4  # each on its own


@pytest.mark.parametrize("kind, count", [("solo", 1), ("vmap", 3), ("unrolled", 3)])
@pytest.mark.parametrize("device", [None, "first"])
def test_states_are_joined_and_split_again(kind, count, device):
    place = jax.devices()[0] if device else None
    bundle = Bundle(kind, count, single=None, many=None, device=place)
    one = [SimpleNamespace(live=jnp.float32(i), x=jnp.full(2, i)) for i in range(count)]
    states = [{"live": state.live, "x": state.x} for state in one]
    joined = bundle.join(states)
    for leaf in jax.tree.leaves(joined):
        assert leaf.committed == (device is not None)  # to stay where it is
    if kind == "vmap":
        assert joined["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    parts = bundle.split(joined)
    assert [float(part["live"]) for part in parts] == list(range(count))
    assert [part["x"].tolist() for part in parts] == [[i, i] for i in range(count)]
    if kind == "unrolled":
        assert isinstance(joined, tuple)
        assert bundle.read(one, "live") == [0, 1, 2]
    else:
        assert bundle.read(one[0], "live") == 0


@pytest.mark.parametrize(
    "replicas, names",
    [
        (2, ["vmap", "unrolled"]),
        (4, ["vmap", "unrolled"]),
        (5, ["vmap", "4", "unrolled"]),
        (8, ["vmap", "4", "unrolled"]),
        (9, ["vmap", "4"]),
        (16, ["vmap", "4"]),
        (17, ["vmap", "4", "16"]),
    ],
)
def test_chunks_smaller_than_the_replicas_are_tried_and_few_are_unrolled(replicas, names):
    assert candidates(replicas) == names


def trial_of(*, steps=1000, replicas=3, about="x", heard=None, program=None):
    heard = [] if heard is None else heard
    return Trial(
        program=program,
        replicas=replicas,
        states=lambda: [],
        batches=lambda way: [],
        steps=steps,
        about=about,
        say=heard.append,
        progress=lambda *what: heard.append(what),
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxcnn" / "ways"


@pytest.fixture
def measured(monkeypatch):
    """Gives the seconds that the next trials measure, and counts the trials."""

    def give(**seconds):
        calls = []
        monkeypatch.setattr(ways, "measure", lambda trial, names: calls.append(names) or seconds)
        return calls

    return give


@pytest.mark.parametrize(
    "seconds, best",
    [
        ({"loop": 1.0, "vmap": 0.98, "unrolled": 0.99}, "loop"),  # within 3 %: the exact one
        ({"loop": 1.0, "vmap": 0.96, "unrolled": 0.99}, "vmap"),
        ({"loop": 1.0, "vmap": 0.96, "unrolled": 0.95}, "unrolled"),
        ({"loop": 1.0, "vmap": 2.0, "unrolled": 1.5}, "loop"),
        ({"loop": 0.003, "vmap": 0.9, "unrolled": 2.0}, "loop"),
    ],
)
def test_the_fastest_way_is_chosen_said_and_remembered(cache, measured, seconds, best):
    trials, heard = measured(**seconds), []
    assert choose(trial_of(heard=heard)).text() == best
    shown = ", ".join(
        f"{name} {seconds[name] * 1000 / 3:.2f}" for name in sorted(seconds, key=seconds.get)
    )
    assert heard == [f"replicas by {best!r} (ms per replica and step: {shown})"]
    assert choose(trial_of()).text() == best
    assert trials == [["vmap", "unrolled"]]
    choose(trial_of(replicas=4))
    choose(trial_of(about="y"))
    assert len(trials) == 3
    choose(trial_of(about="y"))
    assert len(trials) == 3
    (path, *_), content = sorted(cache.iterdir()), {"way": best, "seconds": seconds}
    assert json.loads(path.read_text()) == content


def test_the_order_of_an_experiments_description_is_no_other_experiment(cache, measured):
    trials = measured(loop=1.0, vmap=2.0, unrolled=3.0)
    choose(trial_of(about={"a": 1, "b": 2}))
    choose(trial_of(about={"b": 2, "a": 1}))
    assert len(trials) == 1


def test_a_trial_that_left_a_way_out_or_cannot_be_written_is_made_again(cache, measured):
    trials = measured(loop=1.0, vmap=0.5)
    for _ in range(2):
        assert choose(trial_of()).text() == "vmap"
    assert (len(trials), cache.exists()) == (2, False)
    measured(loop=1.0, vmap=0.5, unrolled=2.0)
    cache.parent.mkdir()
    cache.touch()  # no folder can be made there
    assert choose(trial_of()).text() == "vmap"


def test_a_memory_that_cannot_be_read_is_removed_though_another_process_did(
    cache, measured, monkeypatch
):
    measured(loop=1.0, vmap=0.5)
    one = trial_of()
    path = ways._memory(one)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert choose(one).text() == "vmap"
    assert not path.exists()
    path.write_text("{")
    read = Path.read_text

    def removed(place, *options, **more):
        if place != path:
            return read(place, *options, **more)
        place.unlink()
        return "{"

    monkeypatch.setattr(Path, "read_text", removed)
    assert choose(one).text() == "vmap"


def test_a_way_is_compiled_by_a_first_step_and_timed_by_others(monkeypatch):
    """Each bundle of its replicas is stepped from where it was, with its own batch."""
    stepped, now = [], [0.0]

    def bundle(seconds):
        def train_step(state, batch):
            stepped.append((state, batch))
            now[0] += seconds
            return jax.tree.map(lambda x: x + 1, state), {}

        return SimpleNamespace(train_step=train_step)

    def bundles(way, program, *, layout):
        assert (program, layout) == ("program", SPLIT)
        return [Bundle("unrolled", 2, bundle(0.5), None), Bundle("solo", 1, bundle(0.25), None)]

    monkeypatch.setattr(Way, "bundles", bundles)
    monkeypatch.setattr(ways.time, "perf_counter", lambda: now[0])
    trial = dataclasses.replace(
        trial_of(program="program"),
        **{"states": lambda: [0, 10, 20], "batches": lambda way: [way.text(), "b"]},
        layout=SPLIT,
    )
    runner = ways._Runner(trial, "2")
    assert stepped == [((0, 10), "2"), (20, "b")]
    assert runner.step() == 0.75
    assert stepped[2:] == [((1, 11), "2"), (21, "b")]


@pytest.fixture
def clock(monkeypatch):
    """Time as a trial spends it: {way: (seconds to compile, seconds of each step …)}."""
    clock = SimpleNamespace(now=0.0, steps=[], costs={})

    class Runner:
        def __init__(self, trial, name):
            self.name, (compiling, *self.seconds) = name, clock.costs[name]
            clock.now += compiling
            if self.seconds == [None]:
                raise ResourceError("no memory")

        def step(self):
            clock.steps.append(self.name)
            seconds = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
            clock.now += seconds
            return seconds

    monkeypatch.setattr(ways, "_Runner", Runner)
    monkeypatch.setattr(ways.time, "perf_counter", lambda: clock.now)
    return clock


def test_all_ways_are_measured_in_turns_by_their_median(clock):
    clock.costs = {
        "loop": (2.0, 0.5, 1.5, 9.0, 3.0, 1.0, 2.0, 3.0),
        "vmap": (2.0, 5.0, 1.0, 4.0, 2.0, 3.0),
        "unrolled": (1.0, 0.5),
    }
    heard = []
    found = measure(trial_of(steps=10**6, heard=heard), ["vmap", "unrolled"])
    assert found == {"loop": 3.0, "vmap": 3.0, "unrolled": 0.5}
    assert clock.steps == ["loop"] * 2 + ["loop", "vmap", "unrolled"] * 5
    assert heard == [
        (0, 4, "ways to run 3 replicas: compiling loop"),
        (1, 4, "compiling vmap"),
        (2, 4, "compiling unrolled"),
        (3, 4, "measuring loop, vmap, unrolled"),
        (4, 4, "measured"),
    ]


@pytest.mark.parametrize(
    "replicas, steps, tried",
    [
        # a tenth of the steps of a second each; vmap takes 1.5 * 2 + 5 of it at most
        (3, 79, ["loop"]),
        (3, 80, ["loop", "vmap"]),  # and then has taken 2
        (3, 99, ["loop", "vmap"]),
        (3, 100, ["loop", "vmap", "unrolled"]),
        # unrolled over six, 0.5 * 6 * 2 + 5
        (6, 129, ["loop", "vmap"]),
        (6, 130, ["loop", "vmap", "unrolled"]),
    ],
)
def test_a_trial_takes_a_tenth_of_the_run_at_most(clock, replicas, steps, tried):
    clock.costs = {"loop": (2.0, 0.5, 1.5, 1.0), "vmap": (2.0, 1.0), "unrolled": (1.0, 1.0)}
    heard = []
    found = measure(trial_of(steps=steps, replicas=replicas, heard=heard), ["vmap", "unrolled"])
    assert list(found) == tried
    said = [text for text in heard if isinstance(text, str)]
    left_out = [name for name in ("vmap", "unrolled") if name not in tried]
    assert [text.partition(":")[0] for text in said] == left_out
    if steps == 79:
        assert said[0] == (
            "vmap: not tried, compiling it may take 8.0 s and a trial 7.9 s more (10% of the run); "
            "--replicas-by forces it"
        )
        assert heard[-1] == (4, 4, "measured")
        assert found == {"loop": 1.0}


def test_a_way_that_does_not_fit_into_memory_is_left_out(clock):
    clock.costs = {"loop": (2.0, 1.0), "vmap": (2.0, None), "unrolled": (1.0, 0.5)}
    heard = []
    found = measure(trial_of(steps=10**6, heard=heard), ["vmap", "unrolled"])
    assert found == {"loop": 1.0, "unrolled": 0.5}
    assert "vmap: not tried: no memory" in heard
    clock.costs["unrolled"] = (1.0, None)
    assert measure(trial_of(steps=10**6), ["vmap", "unrolled"]) == {"loop": 1.0}
