"""The loop for many replicas in one program: each with its own data order, history, best checkpoint
and verdict.

A run directory of replicas holds loop.json (with "points" and "way"), metrics.jsonl (losses and
metrics as lists, in the order of "points"), checkpoints/ (all replicas in one file),
replica-<i>/checkpoints/ (best and final state of each, as a solo run has them) and summary.json.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.runs import environment
from jaxcnn.runs import evaluation
from jaxcnn.core import transforms
from jaxcnn.runs import loop
from jaxcnn.runs import sweep
from jaxcnn.runs import rundir as places
from jaxcnn.runs.checkpoint import Checkpoints, digest, write_atomically
from jaxcnn.data.dataset import Source, batch_indices
from jaxcnn.errors import DivergedError, ResourceError
from jaxcnn.core.experiment import Experiment
from jaxcnn.runs.writers import Console, History
from jaxcnn.ops.convolution import current_formulation
from jaxcnn.core.override import render
from jaxcnn.core.program import Program, make_program
from jaxcnn.runs.ways import Way, choose


def train(
    experiment: Experiment,
    points: list[sweep.Point],
    folder: Path | str,
    *,
    resume: bool = False,
    name: str = "experiment",
    record: dict | None = None,
    console: Console | None = None,
    way: str | None = None,
    halving: int | None = None,
) -> dict[str, Any]:
    """Train one replica of `experiment` for each point (seed and numbers of the state), in one
    program; return the summary.

    `way`: "vmap", "loop", "unrolled", "devices" or a chunk size; by default the fastest of a short
    trial. `halving` h: keep one in h at each rung, at 1/h of the steps for each power of h (K.
    Jamieson and A. Talwalkar, "Non-stochastic best arm identification and hyperparameter
    optimization", 2016, figure 1). A diverged replica is frozen and reported, and does not stop the
    others.
    Errors: as jaxcnn.runs.loop.train; DivergedError only if all replicas diverge.
    """
    folder, console = Path(folder).absolute(), console or Console()
    with places.locked(folder, resume=resume):
        many = _open(experiment, points, folder, name=name, record=record or {}, resume=resume, console=console, way=way, halving=halving)
        try:
            with places.signals() as stop:
                return _loop(many, stop)
        finally:
            console.stop()


@dataclasses.dataclass
class _Many:
    """What one process holds of a run of replicas. `active`: the points still in training, in the
    order of the state.
    """

    experiment: Experiment
    points: list[sweep.Point]
    name: str
    folder: Path
    console: Console
    way: Way
    halving: int | None
    base: Program  # of one replica, not compiled
    steps: int
    train: Source
    eval: Source
    history: History
    checkpoints: Checkpoints
    started: float
    active: list[int]
    program: Program
    state: Any  # a tuple of chunks, see jaxcnn.core.transforms.chunked
    step: int = 0
    pending: list = dataclasses.field(default_factory=list)
    since: float = 0.0
    saved: float = 0.0
    failed_save: ResourceError | None = None

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def epoch(self) -> float:
        return self.step * self.experiment.batch_size / len(self.train)

    def solo_states(self) -> list:
        return transforms.unstack(self.state, self.way.sizes)

    def own(self, point: int) -> Checkpoints:
        """The checkpoints of one replica."""
        return Checkpoints(self.folder / f"replica-{point}" / "checkpoints", keep=1)

    def evaluations(self, point: int) -> list[dict]:
        """The evaluations of one replica, as a solo run's history has them."""
        rows = [r for r in self.history.evaluations() if point in r["points"]]
        found = [{**r, "metrics": r["metrics"][r["points"].index(point)]} for r in rows]
        return [r for r in found if r["metrics"] is not None]

    def frozen(self) -> dict[int, dict]:
        """{point: record} of the replicas that were stopped, and why."""
        return {r["point"]: r for r in self.history.records if r["kind"] == "frozen"}


def keys_and_numbers(e: Experiment, points: list[sweep.Point]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Stacked PRNG keys [R] and {path: float32 [R]} of the replicas."""
    keys = jnp.stack([jax.random.key(p.get("seed", e.seed)) for p in points])
    paths = sorted({path for p in points for path in sweep.numbers(e, p)})
    return keys, {path: jnp.asarray([p.get(path, sweep.get_at(e, path)) for p in points], jnp.float32) for path in paths}


def replica_batch(source: Source, seeds: list[int], step: int, *, batch_size: int) -> dict:
    """The training batches of all replicas, [R, B, …], each in its own order."""
    return source.take(np.stack([batch_indices(s, step, size=len(source), batch_size=batch_size) for s in seeds]))


def evaluate(program: Program, state: Any, source: Source, e: Experiment, count: int) -> list[dict[str, Any]]:
    """Metrics of each of `count` replicas on all examples of `source`."""
    results = evaluation.collect(program, state, source, e)

    def of(i: int) -> list:
        return [(rows, jax.tree.map(lambda x: x[i], result)) for rows, result in results]

    return [evaluation.merge(e.task, of(i)) for i in range(count)]


def _open(e, points, folder, *, name, record, resume, console, way, halving) -> _Many:
    """Open data, choose the way, and initialize or restore the states of all replicas."""
    train_source, eval_source = evaluation.open_checked(e, "train"), evaluation.open_checked(e, "eval")
    steps = e.total_steps(len(train_source))
    base = make_program(e, steps=steps)
    seen = {**environment.describe(), "convolution": current_formulation()}
    keys, numbers = keys_and_numbers(e, points)
    if resume:
        old = places.read_json(folder / "run.json")
        chosen, halving = Way.from_text(old["way"], len(points)), old["halving"]
        for difference in environment.differences(old["environment"], seen):
            console.line(f"warning: not bit-exact from here on: {difference}")
    else:
        batch = replica_batch(train_source, [p.get("seed", e.seed) for p in points], 0, batch_size=e.batch_size)
        chosen = choose(base, keys, numbers, batch, forced=way, console=console, about=render(e))
        content = {"experiment": name, **record, "points": points, "way": chosen.text(), "halving": halving}
        places.make_folder(folder / "checkpoints")
        write_atomically(folder / "run.json", [json.dumps({**content, "rendered": render(e), "environment": seen}, indent=1).encode()])
    for i in range(len(points)):
        places.make_folder(folder / f"replica-{i}" / "checkpoints")
    history, checkpoints = History(folder / "metrics.jsonl"), Checkpoints(folder / "checkpoints")
    everyone = list(range(len(points)))
    program = chosen.apply(base)
    common = (e, points, name, folder, console, chosen, halving, base, steps, train_source, eval_source, history, checkpoints)
    many = _Many(*common, started=0.0, active=everyone, program=program, state=())
    if not (resume and _restore(many, keys, numbers)):
        states = transforms.unstack(program.init(keys, numbers), chosen.sizes)
        many.state = transforms.stack([loop.initialized(e, state, train_source, console) for state in states], chosen.sizes)
        if resume:
            history.truncate(-1)
    many.started = time.monotonic() - history.seconds()
    return many


def _restore(many: _Many, keys: jax.Array, numbers: dict) -> bool:
    """Take the newest good checkpoint, with the replicas that were active then; False if there is
    none yet.
    """

    def template(arrays: dict) -> dict:
        index = arrays["active"]
        many.active = index.tolist()
        many.way = many.way.resized(len(index))
        many.program = many.way.apply(many.base)
        state = jax.eval_shape(many.program.init, keys[index], {path: n[index] for path, n in numbers.items()})
        return {"active": index, "state": state}

    many.checkpoints.clean()
    restored = many.checkpoints.restore(template, warn=lambda text: many.console.line("warning: "
                                                                                      f"{text}"))
    if restored is None:
        return False
    many.state, many.step = restored[0]["state"], restored[1]
    many.history.truncate(many.step)
    return True


def rungs(steps: int, replicas: int, halving: int) -> dict[int, int]:
    """{step: replicas kept from there on}: rounds of successive halving until one replica is left,
    the last round ending at `steps`.
    """
    kept = []
    while (kept[-1] if kept else replicas) > 1:
        kept.append(-(-(kept[-1] if kept else replicas) // halving))
    return {max(1, round(steps / halving ** (len(kept) - i))): count for i, count in enumerate(kept)}


def _loop(many: _Many, stop) -> dict[str, Any]:
    """Train all replicas to the last step. Metrics are fetched at log intervals only."""
    e = many.experiment
    evaluate_every = e.eval_interval(len(many.train))
    plan = rungs(many.steps, len(many.points), many.halving) if many.halving else {}
    many.saved = many.since = time.monotonic()
    many.console.start(step=many.step, steps=many.steps)
    while many.step < many.steps and set(many.active) - set(many.frozen()):
        seeds = [many.points[i].get("seed", e.seed) for i in many.active]
        many.state, metrics = many.program.train_step(many.state, replica_batch(many.train, seeds, many.step, batch_size=e.batch_size))
        many.pending.append(metrics)
        many.step += 1
        if many.step % e.log_every == 0:
            _log(many)
        rung = many.step < many.steps and len(many.active) > plan.get(many.step, len(many.active))
        evaluating = many.step % evaluate_every == 0 or many.step == many.steps or rung
        stopping = stop()
        if evaluating:
            _evaluate(many)
        if rung:
            _drop(many, keep=plan[many.step])
        if evaluating or stopping or time.monotonic() - many.saved > loop.SAVE_SECONDS:
            _save(many)
        if stopping and many.step < many.steps:
            text = f"stopped by a signal at step {many.step} of {many.steps}, state saved"
            raise places.Preempted(f"{text}; go on with: train --resume {many.folder}")
    if many.failed_save:
        raise many.failed_save
    return _summarize(many)


def _log(many: _Many) -> None:
    """One record for the interval: mean losses [R], None for a replica that is frozen."""
    if not many.pending:
        return
    fetched, many.pending = jax.device_get(many.pending), []
    live = np.all([m["live"] for m in fetched], axis=0)  # [R]
    frozen = many.frozen()
    for i in np.flatnonzero(~live):
        if many.active[i] not in frozen:
            _report_frozen(many, many.active[i], int(many.solo_states()[i].step), "diverged")
    rate = len(fetched) * many.experiment.batch_size * len(many.active) / max(time.monotonic() - many.since, 1e-9)
    base = {"kind": "train", "step": many.step, "epoch": many.epoch(), "images_per_second": rate, "seconds": many.seconds()}
    means = {}
    for name in ("loss", "grad_norm"):
        values = np.stack([m[name] for m in fetched]).mean(0)
        means[name] = [float(v) if ok else None for v, ok in zip(values, live.tolist(), strict=True)]
    many.history.append({**base, "points": many.active, **means})
    known = [v for v in means["loss"] if v is not None]
    if known:
        many.console.train({**base, "loss": float(np.mean(known))})
    many.since = time.monotonic()


def _report_frozen(many: _Many, point: int, at: int, why: str) -> None:
    many.console.line(f"replica {point} {many.points[point]}: {why} at step {at}; it is frozen, "
                      "the others go on")
    many.history.append({"kind": "frozen", "step": many.step, "seconds": many.seconds(), "point": point, "at": at, "why": why})
    if all(r["why"] == "diverged" for r in many.frozen().values()) and len(many.frozen()) == len(many.points):
        raise DivergedError(
            f"all {len(many.points)} replicas diverged by step {many.step}; lower "
            "optimizer.learning_rate or set clip_norm=1.0"
        )


def _evaluate(many: _Many) -> None:
    """Evaluate all replicas, keep the best state of each, and stop those out of patience."""
    _log(many)
    e, frozen = many.experiment, many.frozen()
    metrics = evaluate(many.program, many.state, many.eval, e, len(many.active))
    diverged = {point for point, r in frozen.items() if r["why"] == "diverged"}
    metrics = [None if point in diverged else m for point, m in zip(many.active, metrics, strict=True)]
    states, before = many.solo_states(), {point: many.evaluations(point) for point in many.active}
    record = {"kind": "eval", "step": many.step, "epoch": many.epoch(), "points": many.active, "metrics": metrics}
    many.history.append({**record, "seconds": many.seconds()})
    values = [m[e.task.metric] for m in metrics if m is not None and m[e.task.metric] is not None]
    if values:
        spread = (
        f"mean {np.mean(values):.4f} ± "
        f"{np.std(values, ddof=1) if len(values) > 1 else 0:.4f}, best {max(values):.4f}"
)
        many.console.line(f"step {many.step}  epoch {many.epoch():.2f}  eval of {len(values)} "
                          f"replicas  {e.task.metric} {spread}")
    for i, point in enumerate(many.active):
        if metrics[i] is None or point in frozen:
            continue
        new = {"metrics": metrics[i]}
        if evaluation.best_evaluation(e, [*before[point], new]) is new:
            _try_save(many, lambda i=i, point=point: many.own(point).save(states[i], step=many.step, best=True))
        if evaluation.out_of_patience(e, many.evaluations(point)):
            states[i] = states[i].replace(live=jnp.zeros((), bool))
            _report_frozen(many, point, many.step, "stopped early")
    many.state = transforms.stack(states, many.way.sizes)
    many.since = time.monotonic()


def _drop(many: _Many, *, keep: int) -> None:
    """A rung of successive halving: the best `keep` replicas go on, in a program of their own."""
    e = many.experiment

    def rank(point: int) -> float:
        evaluations = many.evaluations(point)
        value = evaluations[-1]["metrics"][e.task.metric] if evaluations and point not in many.frozen() else None
        return -np.inf if value is None else value * (1 if e.task.larger_is_better else -1)

    best = sorted(many.active, key=rank, reverse=True)[:keep]
    kept = [point for point in many.active if point in best]
    states = dict(zip(many.active, many.solo_states(), strict=True))
    for point in set(many.active) - set(kept):
        _try_save(many, lambda point=point: many.own(point).save(states[point], step=many.step))
    many.history.append({"kind": "rung", "step": many.step, "seconds": many.seconds(), "kept": kept})
    many.console.line(f"rung at step {many.step}: {len(kept)} of {len(many.active)} replicas go "
                      f"on: {kept}")
    many.active, many.way = kept, many.way.resized(len(kept))
    many.program, many.state = many.way.apply(many.base), transforms.stack([states[point] for point in kept], many.way.sizes)


def _save(many: _Many) -> None:
    _log(many)
    many.history.sync()
    many.saved = time.monotonic()
    tree = {"active": np.asarray(many.active, np.int32), "state": many.state}
    _try_save(many, lambda: many.checkpoints.save(tree, step=many.step))


def _try_save(many: _Many, save) -> None:
    """A full disk is reported and training goes on, with the older checkpoints kept."""
    try:
        save()
        many.failed_save = None
    except ResourceError as error:
        many.failed_save = error
        many.console.line(f"warning: {error}; training goes on, the next save will be tried")


def _summarize(many: _Many) -> dict[str, Any]:
    """Write and return summary.json: one entry a replica, and where the best one is."""
    e, rows = many.experiment, []
    for point, state in zip(many.active, many.solo_states(), strict=True):
        many.own(point).save(state, step=int(state.step))
    finals = dict(zip(many.active, many.solo_states(), strict=True))
    for point, values in enumerate(many.points):
        evaluations = many.evaluations(point)
        row = {"replica": point, "point": values, "eval": evaluations[-1]["metrics"] if evaluations else None}
        if evaluations:
            best = evaluation.best_evaluation(e, evaluations)
            row["best"] = {"step": best["step"], e.task.metric: best["metrics"][e.task.metric]}
        why = many.frozen().get(point)
        row["verdict"] = (
        f"{why['why']} at step "
        f"{why['at']}"
) if why else "completed" if point in finals else "dropped at a rung"
        if point in finals:
            row["state_sha256"] = digest(finals[point])
        rows.append(row)
    summary = {
        "experiment": many.name,
        "completed": True,
        "step": many.step,
        "epoch": many.epoch(),
        "seconds": many.seconds(),
        "way": many.way.text(),
        "metric": e.task.metric,
        "replicas": rows,
    }
    write_atomically(many.folder / "summary.json", [json.dumps(summary, indent=1).encode()])
    return summary
