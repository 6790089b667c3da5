"""What is said and written at the beginning of a run: run.json and code/ of a new one; of one that
is gone on with, what it keeps, and what has changed since.
"""

import itertools
import json
import secrets
from pathlib import Path
from typing import Any

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.rendering import render
from jaxcnn.data.algebra import Balanced, Fold
from jaxcnn.data.dataset import Source
from jaxcnn.data.recorded import files_of
from jaxcnn.data.recorded import record as record_data
from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.ops.convolution import current_formulation
from jaxcnn.runs import code, environment, keeping, sweep
from jaxcnn.runs.carry import carried_record
from jaxcnn.runs.checkpoint import digest
from jaxcnn.runs.feed import steps_per_dispatch
from jaxcnn.runs.members import Plan, is_done
from jaxcnn.runs.records import FORMAT, now, read_run
from jaxcnn.runs.replica import pinned_weights
from jaxcnn.runs.rundir import kept_start, replica_folder, start_of, sweep_in_need, write_json
from jaxcnn.runs.sweep import Point
from jaxcnn.runs.writers import Console


def kept_plan(
    experiment: Experiment | None, folder: Path, given: dict[str, Any], *, console: Console
) -> Plan:
    """The plan that a run directory keeps. Errors: ConfigError for another experiment, or where
    something `given` differs; CheckpointError.
    """
    record, given_experiment = read_run(folder), experiment is not None
    _check_alone(folder, record)
    if experiment is None:
        experiment = code.reopen(folder, record)
    elif changed := code.differences(record["rendered"], render(experiment)):
        raise ConfigError(
            f"{folder}: is a run of another experiment: {'; '.join(changed[:5])}; resume it as "
            "it was (leave the experiment out), or go on from it with other settings: "
            "train --from, train(experiment, start=folder)"
        )
    kept = {key: record.get(key) for key in given}
    if changed := code.differences(kept, json.loads(json.dumps(given))):
        raise ConfigError(f"{folder}: was started otherwise: {'; '.join(changed[:5])}")
    points = record.get("points")
    _check_points(folder, experiment, points or [])
    return Plan(
        experiment,
        record["experiment"],
        folder,
        console,
        resume=True,
        given=given_experiment,
        started_in=None if given_experiment else start_of(folder, record),
        points=None if points is None else tuple(map(sweep.as_point, points)),
        halving=record.get("halving"),
        together=record.get("together"),
    )


def _check_alone(folder: Path, record: dict[str, Any]) -> None:
    """ConfigError for a replica that its sweep has still to train: the replicas of a sweep go on
    from a step that all of them have.
    """
    if (whole := sweep_in_need(folder, record)) is not None:
        index = record["replica"]
        raise ConfigError(
            f"{folder}: is replica {index} of a sweep that is not done, which could not go on "
            f"without it; go on with them all: train --resume {whole}; with a copy of this one "
            f"alone: train --from {folder}"
        )


def _check_points(folder: Path, experiment: Experiment, points: list[Point]) -> None:
    """CheckpointError for points of a run.json that do not fit its experiment."""
    for i, point in enumerate(points):
        try:
            sweep.at(experiment, sweep.as_point(point))
        except (ConfigError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / 'run.json'}: points.{i}: {error}") from error


def surroundings() -> environment.Facts:
    """What the bits of this process's results depend on. Starts JAX."""
    return {**environment.describe(), "convolution": current_formulation()}


def describe(plan: Plan, source: Source) -> None:
    """Write run.json and code/ of a new run, or compare with those of an old one."""
    if plan.resume:
        records = [read_run(folder) for folder in _begun(plan)]
        seen = [environment.differences(old["environment"], plan.environment) for old in records]
        changed = keeping.changed(plan.folder, read_run(plan.folder), given=plan.given)
        for difference in dict.fromkeys([*itertools.chain(*seen), *changed]):
            plan.console.line(f"warning: not bit-exact from here on: {difference}")
        return
    e = plan.experiment
    project = plan.origin.path.parent if plan.origin else Path.cwd()
    content: dict[str, Any] = {
        "format": FORMAT,
        "id": secrets.token_hex(16),
        "experiment": plan.name,
        "began": now(),
        "started_in": kept_start(plan.folder, _start(plan)),
        "code": keeping.keep(plan.folder / "code", e, plan.origin),
        "project": environment.commit(project),
        "steps_per_dispatch": steps_per_dispatch(e, source),
        "data": {**record_data(e.data).to_json(), "files": files_of(e.data)},
    }
    if plan.points is not None:
        content |= {"points": list(plan.points), "halving": plan.halving}
        asked = {"together": plan.together, "way": plan.way}
        content |= {name: value for name, value in asked.items() if value is not None}
    if plan.start is not None:
        content["started_from"] = carried_record(plan.start)
    if pins := pinned_weights(sweep.at(e, point) for point in plan.points or ({},)):
        content["weights"] = pins
    content |= {"rendered": render(e), "environment": plan.environment}
    diffs = {
        "jaxcnn.diff": environment.diff() if plan.environment["modified"] else "",
        "project.diff": environment.project_diff(project) if content["project"]["modified"] else "",
    }
    for name, text in diffs.items():
        if text:
            (plan.folder / "code" / name).write_text(text, encoding="utf-8")
    write_json(plan.folder / "run.json", content)


def asked(plan: Plan) -> dict[str, Any]:
    """What must be the same on all hosts."""
    e, seen = plan.experiment, plan.environment
    own = ("versions", "source", "XLA_FLAGS", "settings", "convolution")
    start = plan.start and {**carried_record(plan.start), "state": digest(plan.start.state)[:16]}
    return {
        **{name: seen.get(name) for name in own},
        "experiment": render(e),
        "points": plan.points,
        "halving": plan.halving,
        "replicas by": plan.way,
        "goes on from": start,
        "data": {**record_data(e.data).to_json(), "files": files_of(e.data)},
    }


def _begun(plan: Plan) -> list[Path]:
    """The folders of what this process is to go on with."""
    if plan.solo:
        return [plan.folder]
    if plan.launch:
        return []
    replicas = (replica_folder(plan.folder, i) for _, part in plan.groups() for i in part)
    return [f for f in replicas if (f / "run.json").is_file() and not is_done(f)]


def _start(plan: Plan) -> Path:
    """Where relative places of its data begin: here, or, of an experiment that another run kept,
    where that was started.
    """
    if plan.start is None or plan.origin is None:
        return Path.cwd()
    if not plan.origin.path.is_relative_to(plan.start.folder):
        return Path.cwd()
    return start_of(plan.start.folder, plan.start.record)


def say_folds(plan: Plan) -> None:
    """Which examples the folds are made of, and which take no part."""
    if not any("fold" in point for point in plan.points or ()):
        return
    data = plan.experiment.data
    while isinstance(data, Balanced | Fold):
        data = data.data
    text = f"folds of the {data.size('train'):,} training examples"
    if left := data.size("eval"):
        role = "take no part" if data.size("test") else "are the test"
        text += f"; the {left:,} that the data hold out as 'eval' {role}"
    plan.console.line(text)
