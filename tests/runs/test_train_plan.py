"""What is asked of `train`, and what is planned of it, before anything is trained."""

import dataclasses
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.core import memory
from jaxcnn.core.program import make_program
from jaxcnn.errors import ConfigError, ResourceError
from jaxcnn.runs.launch import Launch
from jaxcnn.runs.members import Plan
from jaxcnn.runs.open import Run
from tests.runs.test_opened import POINTS, E, put, put_sweep
from tests.runs.test_record_rules import RUN
from tests.tiny import Lines, tiny

module = importlib.import_module("jaxcnn.runs.train")
SEEDS = ({"seed": 1}, {"seed": 2}, {"seed": 3})


@pytest.fixture
def plans(monkeypatch):
    """The plans that would have been trained, each in a folder that is owned."""
    found = []

    def train(plan):
        assert (plan.folder / "run.lock").exists()
        found.append(plan)
        return "the run"

    monkeypatch.setattr(module, "_train", train)
    return found


def test_an_experiment_is_planned_as_it_is_asked_for(tmp_path, plans):
    console, e = Lines(), tiny()
    assert module.train(e, tmp_path / "run", console=console) == "the run"
    (plan,) = plans
    assert (plan.experiment, plan.name, plan.folder) == (e, "experiment", tmp_path / "run")
    assert console.lines == [f"run: {tmp_path / 'run'}"]
    for field in dataclasses.fields(Plan)[4:]:
        default = {"observe": (), "environment": {}, "resume": False, "given": False}
        assert getattr(plan, field.name) == default.get(field.name), field.name
    assert not (tmp_path / "run").exists()  # nothing was made in it

    def look(event):
        return None

    points = [{"seed": 1}, {"seed": 2}]
    module.train(e, tmp_path / "sweep", points=iter(points), way="vmap", halving=2, name="mine",
                 observe=[look], profile=(1, 2), console=console)  # fmt: skip
    plan = plans[-1]
    assert (plan.points, plan.way, plan.halving, plan.name) == (tuple(points), "vmap", 2, "mine")
    assert plan.observe == (look,)
    assert (plan.profile._folder.parent, plan.together) == (tmp_path / "sweep", None)


def test_a_run_without_a_folder_is_given_one_of_its_name(tmp_path, plans, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module.train(tiny(), name="mine")
    assert plans[0].folder.parent == tmp_path / "runs"
    assert plans[0].folder.name.startswith("mine-")
    assert capsys.readouterr().err == f"run: {plans[0].folder}\n"
    assert list((tmp_path / "runs").iterdir()) == []
    module.train(tiny(), "relative", quiet=True)
    assert plans[1].folder == tmp_path / "relative"
    assert capsys.readouterr().err == ""


def test_an_experiment_file_is_its_origin(tmp_path, plans):
    file = tmp_path / "my_own_file.py"
    file.write_text("from tests.tiny import tiny\nexperiment = tiny()\n")
    module.train(file, tmp_path / "run", overrides=["seed=7", "steps=3"], quiet=True)
    (plan,) = plans
    assert (plan.experiment.seed, plan.experiment.steps, plan.name) == (7, 3, "my_own_file")
    assert plan.origin.path == file.resolve()
    assert plan.origin.overrides == ("seed=7", "steps=3")
    assert sys.modules[plan.origin.module].experiment.seed == 0
    with pytest.raises(ConfigError, match="overrides: belong to an experiment file"):
        module.train(tiny(), tmp_path / "run", overrides=["seed=7"])


def test_folds_are_points(tmp_path, plans):
    module.train(tiny(), tmp_path / "a", folds=2, quiet=True)
    assert plans[0].points == ({"fold": (0, 2)}, {"fold": (1, 2)})
    module.train(tiny(), tmp_path / "b", folds=2, points=SEEDS[:1], quiet=True)
    assert plans[1].points == tuple({"seed": 1, "fold": (k, 2)} for k in (0, 1))


LAUNCH = Launch("local", 2)


@pytest.mark.parametrize(
    "asked, says",
    [
        ({"folds": 2, "start": "a run"}, "folds: go with neither start"),
        ({"folds": 2, "halving": 2}, "folds: go with neither start"),
        ({"way": "vmap"}, "way and halving say how the points"),
        ({"halving": 2}, "way and halving say how the points"),
        ({"launch": LAUNCH, "points": SEEDS, "observe": [print]}, "launch: workers take neither"),
        ({"launch": LAUNCH, "points": SEEDS, "profile": (1, 2)}, "launch: workers take neither"),
        ({"launch": LAUNCH, "points": SEEDS, "start": "a run"}, "launch: workers take neither"),
        ({"launch": LAUNCH}, "launch: divides the points of a sweep"),
        ({"experiment": None}, "give an experiment, or a folder with resume=True"),
        ({"resume": True, "folder": None}, "give the run's folder, and no start"),
        ({"resume": True, "start": "a run"}, "give the run's folder, and no start"),
        ({"points": [{"seed": np.int32(1)}]}, "point 0 of the sweep: seed"),
        ({"start": "nowhere"}, "nowhere: is not a run directory"),
        ({"profile": (3, 1)}, "profile"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_folder_is_made(
    tmp_path, plans, monkeypatch, asked, says
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=says):
        module.train(**{"experiment": tiny(), "folder": "run", **asked})
    assert plans == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_to_go_on_from_is_a_single_one_of_ones_own(tmp_path, plans):
    solo = put(tmp_path / "solo")
    module.train(E, tmp_path / "a", start=solo, quiet=True)
    module.train(E, tmp_path / "b", start=Run(solo), quiet=True)
    assert [plan.start.folder for plan in plans] == [solo, solo]
    sweep = put_sweep(tmp_path / "sweep")
    with pytest.raises(ConfigError, match=r"is a sweep; go on from one of .*replicas/0"):
        module.train(E, tmp_path / "c", start=sweep, quiet=True)
    shared = put(tmp_path / "shared", published=RUN["published"])
    with pytest.raises(ConfigError, match="shared"):
        module.train(E, tmp_path / "c", start=shared, quiet=True)


def test_workers_have_a_part_each(tmp_path, plans):
    module.train(tiny(), tmp_path / "a", points=SEEDS, launch=LAUNCH, quiet=True)
    module.train(tiny(), tmp_path / "b", points=SEEDS, launch=LAUNCH, way="3", quiet=True)
    module.train(tiny(), tmp_path / "c", points=SEEDS, launch=LAUNCH, halving=2, quiet=True)
    assert [plan.together for plan in plans] == [2, 3, None]
    assert all(plan.launch is LAUNCH for plan in plans)


def test_the_process_is_prepared_and_hosts_are_asked_whether_they_can(tmp_path, plans, monkeypatch):
    done = []
    monkeypatch.setattr(module.environment, "prepare_process", lambda: done.append("prepared"))
    monkeypatch.setattr(
        module.hosts, "check", lambda folder, *, apart: done.append((folder, apart))
    )
    module.train(tiny(), tmp_path, quiet=True)
    module.train(tiny(), tmp_path, points=SEEDS, launch=LAUNCH, quiet=True)
    assert done == ["prepared", (tmp_path, False), "prepared", (tmp_path, True)]
    done.clear()
    folder = put_sweep(tmp_path / "s", points=POINTS)
    (folder / "run.lock").touch()  # by who trains the sweep
    module.train_part(folder, 0, console=Lines())
    assert done == [(folder, True)]


def test_a_resumed_run_is_compared_with_what_is_given(tmp_path, monkeypatch):
    asked = []

    def go_on(experiment, folder, given, **more):
        asked.append((experiment, folder, given, more))
        return "the run"

    monkeypatch.setattr(module, "go_on", go_on)
    console = Lines()
    assert module.train(None, tmp_path, resume=True, console=console) == "the run"
    assert asked[0][:3] == (None, tmp_path, {})
    nothing = {"way": None, "observe": (), "profile": None, "launch": None, "console": console}
    assert asked[0][3] == nothing
    e = tiny()
    more = {"way": "loop", "observe": (print,), "profile": (1, 2), "console": console}
    module.train(e, str(tmp_path), resume=True, points=iter(SEEDS), halving=2, name="mine", **more)
    given = {"points": [*SEEDS], "halving": 2, "experiment": "mine"}
    assert asked[1] == (e, tmp_path, given, {**more, "launch": None})


def test_a_run_goes_on_by_its_own_plan(tmp_path, plans):
    solo, console = put(tmp_path / "solo"), Lines()
    assert module.go_on(None, solo, {}, console=console, observe=(print,), until=5,
                        profile=(1, 2)) == "the run"  # fmt: skip
    plan = plans[0]
    assert (plan.resume, plan.given, plan.folder, plan.points) == (True, False, solo, None)
    assert (plan.observe, plan.until, plan.console) == ((print,), 5, console)
    assert plan.profile._folder.parent == solo
    for asked, says in (({"way": "vmap"}, "way='vmap': "), ({"launch": LAUNCH}, "launch: ")):
        with pytest.raises(ConfigError, match=f"^{says}{solo} is a single run"):
            module.go_on(None, solo, {}, console=console, **asked)
    with pytest.raises(ConfigError, match="was started otherwise"):
        module.go_on(None, solo, {"experiment": "another"}, console=console)
    sweep = put_sweep(tmp_path / "sweep")
    module.go_on(E, sweep, {}, console=console, way="vmap", launch=LAUNCH)
    assert (plans[1].way, plans[1].launch, plans[1].given) == ("vmap", LAUNCH, True)
    assert plans[1].points == tuple(POINTS)
    shared = put(tmp_path / "shared", published=RUN["published"])
    with pytest.raises(ConfigError, match="shared"):
        module.go_on(None, shared, {}, console=console)
    assert len(plans) == 2


def parts_of(tmp_path):
    """A sweep of two groups: replicas 0 and 1, and 2."""
    folder = tmp_path / "sweep"
    put_sweep(folder, points=[{"seed": 3}, {"seed": 4}, {"batch_size": 4}])
    return folder


def test_a_part_of_a_sweep_is_trained_alone(tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr(module, "_train", planned.append)
    folder, console = parts_of(tmp_path), Lines()
    module.train_part(folder, 1, console=console, way="loop", observe=(print,))
    (plan,) = planned
    assert (plan.part, plan.way, plan.observe) == (1, "loop", (print,))
    assert [indices for _, indices in plan.groups()] == [[2]]
    for part in (-1, 2):
        with pytest.raises(ConfigError, match=f"--part {part}: {folder} has the parts 0 to 1"):
            module.train_part(folder, part, console=console)
    with pytest.raises(ConfigError, match=r"--part 0: .* is a single run"):
        module.train_part(put(tmp_path / "solo"), 0, console=console)


def test_the_commands_of_a_sweep_are_its_parts_and_then_its_table(tmp_path):
    folder = parts_of(tmp_path)
    launch = Launch("commands", 2, options=("--quiet",))
    *parts, table = module.commands_of(folder, launch, way="loop")
    for i, words in enumerate(parts):
        assert words[-8:] == [
            *("train", "--resume", str(folder), "--part", str(i), "--replicas-by", "loop"),
            "--quiet",
        ]
    assert len(parts) == 2
    assert table == parts[0][:-5]
    one = put_sweep(tmp_path / "one", count=2, points=[{"seed": 3}, {"seed": 4}])
    assert len(module.commands_of(one, launch)) == 2


def test_without_the_memory_that_jax_starts_with_nothing_is_begun(tmp_path, monkeypatch):
    """With less, its threads end the process without a word."""
    monkeypatch.setattr(memory, "free_bytes", lambda: (memory.STARTING - 1, "a limit"))
    with pytest.raises(ResourceError, match=r"training needs 160\.0 MiB .* \(a limit\); free mem"):
        module.train(tiny(steps=1), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_steps_that_the_run_gone_on_from_has_made_are_no_profile(tmp_path):
    """Refused before there is a folder."""
    state = jax.jit(make_program(E, steps=12).init)(jax.random.key(0))
    state = state.replace(step=jnp.int32(5))
    solo = put(tmp_path / "solo", saved=[(5, state)])
    with pytest.raises(ConfigError, match=r"profile 5\.\.7: this run makes the steps 6 to 12"):
        module.train(E, tmp_path / "run", start=solo, profile=(5, 7), quiet=True)
    assert not (tmp_path / "run").exists()
