"""The loop that runs a program: batches in, history and checkpoints out. No mathematics, and no
knowledge of devices.

A run directory holds: run.json (the rendered experiment, overrides, environment), experiment.py (a
copy of its file), metrics.jsonl, checkpoints/, summary.json, run.lock, and tensorboard/ where the
writer is installed.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.runs import environment
from jaxcnn.weights import load
from jaxcnn.runs.checkpoint import Checkpoints, digest, write_atomically
from jaxcnn.data.dataset import Source, batch_indices
from jaxcnn.runs.diagnosis import first_non_finite
from jaxcnn.errors import ConfigError, DivergedError, ResourceError
from jaxcnn.runs.evaluation import best_evaluation, compiled, evaluate, evaluate_split, is_best, open_checked, out_of_patience
from jaxcnn.core.experiment import Experiment
from jaxcnn.runs.feed import batches, pieces, steps_per_dispatch
from jaxcnn.runs.rundir import Preempted, locked, make_folder, read_json, signals
from jaxcnn.runs.writers import Console, History, TensorBoard
from jaxcnn.ops.convolution import current_formulation
from jaxcnn.core.override import render
from jaxcnn.core.program import Program, State, make_optimizer, make_program, with_numbers

# at most so much work is lost by a kill; a save takes milliseconds at LeNet size
SAVE_SECONDS = 30.0


def train(
    experiment: Experiment,
    folder: Path | str,
    *,
    resume: bool = False,
    name: str = "experiment",
    record: dict | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train `experiment` in the run directory `folder` and return its summary; with `resume`, go on
    from the newest good checkpoint there.

    `name` and `record` (source, overrides) say where the experiment came from. A resumed run gives
    the same bits as one never interrupted.
    Errors: the classes of jaxcnn.errors; Preempted after SIGTERM or SIGINT, with the state saved.
    """
    folder, console = Path(folder).absolute(), console or Console()
    with locked(folder, resume=resume):
        run = _open_run(experiment, folder, name=name, record=record or {}, resume=resume, console=console)
        try:
            with signals() as stop:
                return _loop(run, stop)
        finally:
            console.stop()
            run.tensorboard.close()


@dataclasses.dataclass
class _Run:
    """What one process holds of a run while it trains."""

    experiment: Experiment
    name: str
    folder: Path
    console: Console
    program: Program
    scanned: Program  # the same with `dispatch` steps a call of train_step
    dispatch: int
    state: State
    steps: int
    train: Source
    eval: Source
    history: History
    checkpoints: Checkpoints
    tensorboard: TensorBoard
    started: float
    saved: float = 0.0  # monotonic time of the last save
    since: float = 0.0  # monotonic time from which `pending` counts
    # metrics of the steps since the last record, still on the device
    pending: list = dataclasses.field(default_factory=list)
    failed_save: ResourceError | None = None

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def epoch(self, step: int) -> float:
        return step * self.experiment.batch_size / len(self.train)

    def settle(self) -> None:
        """Wait for the steps in progress."""
        jax.block_until_ready(self.state)


def _open_run(e: Experiment, folder: Path, *, name: str, record: dict, resume: bool, console: Console) -> _Run:
    """Open data, make the program, and initialize or restore the state."""
    steps = e.total_steps(e.data.size("train"))
    plain = make_program(e, steps=steps)
    program, scanned = compiled(plain), compiled(plain, scanned=True)
    train_source, eval_source = open_checked(e, "train"), open_checked(e, "eval")
    dispatch = read_json(folder / "run.json").get("steps_per_dispatch", 1) if resume else steps_per_dispatch(e, train_source)
    seen = {**environment.describe(), "convolution": current_formulation()}
    checkpoints = Checkpoints(folder / "checkpoints")
    history = History(folder / "metrics.jsonl")
    state = None
    if resume:
        checkpoints.clean()
        template = jax.eval_shape(program.init, jax.random.key(e.seed))
        restored = checkpoints.restore(template, warn=lambda text: console.line(f"warning: {text}"))
        if restored:
            state, step = restored
            history.truncate(step)
            for difference in environment.differences(read_json(folder / "run.json")["environment"], seen):
                console.line(f"warning: not bit-exact from step {step} on: {difference}")
        else:
            history.truncate(-1)
    else:
        make_folder(folder / "checkpoints")
        description = {"experiment": name, **record, "steps_per_dispatch": dispatch, "rendered": render(e), "environment": seen}
        write_atomically(folder / "run.json", [json.dumps(description, indent=1).encode()])
    if state is None:
        state = initialized(e, program.init(jax.random.key(e.seed)), train_source, console)
    tensorboard = TensorBoard(folder / "tensorboard", purge_step=int(state.step) + 1)
    started = time.monotonic() - history.seconds()
    sources, outputs = (train_source, eval_source), (history, checkpoints, tensorboard)
    return _Run(e, name, folder, console, program, scanned, dispatch, state, steps, *sources, *outputs, started)


def _loop(run: _Run, stop: Callable[[], bool]) -> dict[str, Any]:
    """Train to the last step. Metrics are fetched at log intervals only, so the device never waits
    for the host.
    """
    e, step = run.experiment, int(run.state.step)
    evaluate_every = e.eval_interval(len(run.train))
    run.saved = run.since = time.monotonic()
    run.console.start(step=step, steps=run.steps)
    ahead = pieces(step, run.steps, size=run.dispatch, intervals=(e.log_every, evaluate_every))
    for (start, step_after), batch in batches(run.train, ahead, seed=e.seed, batch_size=e.batch_size, settle=run.settle):
        if out_of_patience(e, run.history.evaluations()):
            run.console.line(f"stopped early at step {step}: no better {e.task.metric} in "
                             f"{e.patience} evaluations")
            break
        program = run.program if step_after - start == 1 else run.scanned
        run.state, metrics = program.train_step(run.state, batch)
        run.pending.append(metrics)
        step = step_after
        if step % e.log_every == 0:
            _log(run, step)
        evaluating = step % evaluate_every == 0 or step == run.steps
        stopping = stop()  # asked once: what is saved below is what is stopped at
        if evaluating:
            _evaluate(run, step)
        elif stopping or time.monotonic() - run.saved > SAVE_SECONDS:
            _save(run, step)
        if stopping and step < run.steps:
            write_summary(run, step, completed=False)
            raise Preempted(f"stopped by a signal at step {step} of {run.steps}, state saved; go "
                            f"on with: train --resume {run.folder}")
    summary = write_summary(run, step, completed=True)
    if run.failed_save:
        raise run.failed_save
    return summary


def _log(run: _Run, step: int) -> None:
    """Fetch the metrics since the last record, check them, and write one record (means over the
    interval).
    """
    if not run.pending:
        return
    fetched, run.pending = jax.device_get(run.pending), []
    of_steps = {name: np.concatenate([np.atleast_1d(m[name]) for m in fetched]) for name in fetched[0]}
    if not of_steps["live"].all():
        raise _diverged(run)
    for program in (run.program, run.scanned):
        _check_compiled_once(program.train_step, step)
    rate = len(of_steps["live"]) * run.experiment.batch_size / max(time.monotonic() - run.since, 1e-9)
    means = {name: float(np.mean(of_steps[name])) for name in ("loss", "grad_norm")}
    record = {"kind": "train", "step": step, "epoch": run.epoch(step), **means, "images_per_second": rate, "seconds": run.seconds()}
    run.history.append(record)
    run.tensorboard.write(record)
    run.console.train(record)
    run.since = time.monotonic()


def _check_compiled_once(train_step: Callable, step: int) -> None:
    """ConfigError if the step was compiled more than once: a run that compiles again and again is
    slow without a word.
    """
    # of what jax.jit returns; a step over several devices has none
    count = getattr(train_step, "_cache_size", lambda: 1)()
    if count > 1:
        raise ConfigError(
            f"the training step was compiled {count} times in {step} steps: an array of the batch "
            "or the state changes its shape, dtype or "
            "device from step to step; a source must hand out the shapes and dtypes of its "
            "spec(), whatever the indices"
        )


def _evaluate(run: _Run, step: int) -> None:
    _log(run, step)
    e = run.experiment
    metrics = evaluate(run.program, run.state, run.eval, e)
    best = is_best(e, run.history.evaluations(), metrics)
    record = {"kind": "eval", "step": step, "epoch": run.epoch(step), "metrics": metrics, "seconds": run.seconds()}
    run.history.append(record)
    run.tensorboard.write(record)
    run.console.evaluate(record)
    _save(run, step, best=best)
    run.since = time.monotonic()  # evaluation does not count as training


def _save(run: _Run, step: int, *, best: bool = False) -> None:
    """Log what is pending, so that the history is whole up to the checkpoint, and save; only a
    finite state gets here.

    A full disk is reported and training goes on, with the older checkpoints kept.
    """
    _log(run, step)
    run.saved = time.monotonic()
    try:
        run.history.sync()
        run.checkpoints.save(run.state, step=step, best=best)
        run.failed_save = None
    except ResourceError as error:
        run.failed_save = error
        run.console.line(f"warning: {error}; training goes on, the next save will be tried")


def _diverged(run: _Run) -> DivergedError:
    """The error for a run whose state was frozen before its first non-finite update; names step,
    layer and the last good checkpoint.
    """
    step, e = int(run.state.step), run.experiment
    batch = run.train.take(batch_indices(e.seed, step, size=len(run.train), batch_size=e.batch_size))
    where = first_non_finite(e, run.state, batch)
    # its numbers are the last good ones
    run.state = run.state.replace(live=jax.numpy.ones((), bool))
    _save(run, step)
    remedy = "lower optimizer.learning_rate, set clip_norm=1.0, or lengthen the schedule's warm-up"
    return DivergedError(
        f"the loss or a gradient is not finite at step {step} ({where}); the state before it was "
        f"saved in {run.folder}; {remedy}"
    )


def write_summary(run: _Run, step: int, *, completed: bool) -> dict[str, Any]:
    """Write and return summary.json; a completed run is also scored on the test split, if the data
    have one.
    """
    e = run.experiment
    evaluations = run.history.evaluations()
    summary: dict[str, Any] = {
        "experiment": run.name,
        "completed": completed,
        "step": step,
        "epoch": run.epoch(step),
        "seconds": run.seconds(),
        "num_params": sum(x.size for x in jax.tree.leaves(run.state.params)),
        "state_sha256": digest(run.state),
        "eval": evaluations[-1]["metrics"] if evaluations else None,
    }
    if evaluations:
        best = best_evaluation(e, evaluations)
        summary["best"] = {
            "step": best["step"],
            "epoch": best["epoch"],
            **{k: v for k, v in best["metrics"].items() if isinstance(v, (int, float))},
        }
    if completed and evaluations and e.data.size("test"):
        summary["test"] = evaluate_split(e, run.state, "test", metrics=summary["eval"])
    write_atomically(run.folder / "summary.json", [json.dumps(summary, indent=1).encode()])
    return summary


def initialized(e: Experiment, state: State, source: Source, console: Console) -> State:
    """A fresh state with the weights that the experiment asks for, and what its `initialize` makes
    of them.
    """
    if e.weights is None and e.initialize is None:
        return state
    params, model_state = state.params, state.model_state
    if e.weights is not None:
        params, model_state, report = load.fill(e.model, params, model_state, e.weights)
        console.line(f"weights of {e.weights}: {report}")
    if e.initialize is not None:
        params, model_state = e.initialize(params, model_state, source)
    opt_state = make_optimizer(with_numbers(e, state.hyperparams)).init(params)
    # not the same buffers: both are donated to the step
    ema = None if e.ema is None else jax.tree.map(jax.numpy.copy, params)
    return state.replace(params=params, model_state=model_state, opt_state=opt_state, ema=ema)
