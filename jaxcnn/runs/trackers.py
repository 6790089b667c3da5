"""Weights & Biases, MLflow and trackio as loggers (jaxcnn.runs.tracking), each behind an extra.

They get the experiment's fields, the numbers with their steps, the summary and nothing else: no
code, no console output, nothing of the machine. Nothing leaves this machine unless its user said
so to the tracker itself: W&B by WANDB_MODE=online (it is offline else), MLflow by
MLFLOW_TRACKING_URI, trackio by TRACKIO_SPACE_ID or TRACKIO_SERVER_URL.
"""

import contextlib
import importlib
import os
import re
import sys
import time
from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

from jaxcnn.core.rendering import Json
from jaxcnn.errors import ConfigError, DependencyError, did_you_mean
from jaxcnn.runs.board import TensorBoard
from jaxcnn.runs.events import Observer, Record
from jaxcnn.runs.tracking import Open, Tracked, Tracker

PATIENCE = 60  # seconds that a server is waited for, at the beginning and at the end
PARAMS_AT_ONCE, LONGEST_PARAM = 100, 6000  # MLflow's limits


def track(tracker: str | Open, *, name: str | None = None, **options: Any) -> Observer:
    """An observer that tells a tracker of each run: `train(e, observe=[track("wandb")])`.

    Args:
        tracker: "wandb", "mlflow", "trackio", "tensorboard" (with histograms and pictures), or a
            function that opens a logger of one's own (jaxcnn.runs.tracking).
        name: of one's own, in track.json and in messages; by default the function's.
        options: for those with a name: project (by default W&B's WANDB_PROJECT, MLflow's
            MLFLOW_EXPERIMENT_NAME, else the experiment's name); what else there is goes to
            wandb.init, mlflow.MlflowClient or trackio.init.
    Errors: ConfigError for another name, DependencyError where the package is not installed.
    """
    if not isinstance(tracker, str):
        if options:
            raise ConfigError(f"track: {', '.join(options)} belong to a tracker with a name")
        return Tracker(tracker, name=name or getattr(tracker, "__name__", "tracker"))
    if tracker == "tensorboard":
        return TensorBoard(details=True, **options)
    if tracker not in LOGGERS:
        known = (*LOGGERS, "tensorboard")
        raise ConfigError(
            f"track: {tracker!r} is none of {', '.join(known)}{did_you_mean(tracker, known)}"
        )
    if tracker == "wandb":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it reports from its import on
    try:
        with _to_stderr():
            importlib.import_module(tracker)  # takes seconds, which are not those of the training
    except ImportError as error:
        raise DependencyError(
            f"track: {tracker} cannot be imported ({error}): pip install 'jaxcnn[{tracker}]'"
        ) from error
    return Tracker(partial(LOGGERS[tracker], options=options), name=name or tracker)


class _Wandb:
    """A run of Weights & Biases; its folder is RUN/wandb. What was logged offline is uploaded by
    `wandb sync RUN/wandb/offline-run-*`, that of a run that was gone on with in the order of time.
    """

    def __init__(self, run: Tracked, options: Record):
        import wandb  # pyright: ignore[reportMissingImports]

        alone = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=PATIENCE,
            finish_timeout=PATIENCE,
            finish_timeout_raises=True,
        )
        mode = os.environ.get("WANDB_MODE", "offline")
        given: Record = {
            "id": run.id,
            "name": run.name,
            "group": run.group,
            "config": run.config,
        }
        given |= {"project": os.environ.get("WANDB_PROJECT", _slug(run.project)), "mode": mode}
        # several at once, for the replicas of a sweep
        given |= {"resume": "allow", "reinit": "create_new", "dir": str(run.folder)}
        self._run: Any = wandb.init(**(given | {"settings": alone} | options))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, summary: Mapping[str, Json]) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary["completed"] else 1)


class _Mlflow:
    """A run of MLflow, found again by its tag jaxcnn.run; those of a sweep share jaxcnn.group."""

    def __init__(self, run: Tracked, options: Record):
        # a server that is gone shall not hold training up for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

        self._metric: Any = Metric
        options = dict(options)
        project = options.pop("project", None) or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self._client: Any = mlflow.MlflowClient(**options)
        project = project or run.project
        found = self._client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else self._client.create_experiment(project)
        tags = {"jaxcnn.run": run.id, "mlflow.runName": run.name}
        tags |= {"jaxcnn.group": run.group} if run.group else {}
        known = self._client.search_runs([experiment], f"tags.`jaxcnn.run` = '{run.id}'")
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        if run.resumed:
            raise ConfigError(
                f"MLflow has no run with the tag jaxcnn.run={run.id} in {project!r}: set "
                "MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME as they were, or remove "
                f"{run.folder / 'track.json'} to log it anew"
            )
        self._id = self._client.create_run(experiment, tags=tags).info.run_id
        params = [Param(_key(k), str(v)[:LONGEST_PARAM]) for k, v in run.config.items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            part = params[start : start + PARAMS_AT_ONCE]
            self._client.log_batch(self._id, params=part)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(_key(k), float(v), now, step) for k, v in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, summary: Mapping[str, Json]) -> None:
        for key in ("completed", "verdict"):
            self._client.set_tag(self._id, f"jaxcnn.{key}", str(summary[key]))
        self.log(int(summary["step"]), _numbers(summary))
        diverged = str(summary["verdict"]).startswith("diverged")
        status = "FINISHED" if summary["completed"] else "FAILED" if diverged else "KILLED"
        self._client.set_terminated(self._id, status)


class _Trackio:
    """A run of trackio; its database is where trackio has it (TRACKIO_DIR)."""

    def __init__(self, run: Tracked, options: Record):
        with _to_stderr():
            import trackio  # pyright: ignore[reportMissingImports]
            from trackio import context_vars  # pyright: ignore[reportMissingImports]

            context_vars.current_run.set(None)  # the runs of other replicas go on
            name = f"{run.name}-{run.id[:8]}"  # by which trackio finds it again
            given: Record = {"project": _slug(run.project), "name": name}
            given |= {"group": run.group, "resume": "allow"}
            given |= {"auto_log_gpu": False, "auto_log_cpu": False, "embed": False}
            # trackio keeps names with a leading _ to itself
            given["config"] = {k.lstrip("_"): v for k, v in run.config.items()} | {"id": run.id}
            self._run: Any = trackio.init(**(given | options))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, summary: Mapping[str, Json]) -> None:
        with _to_stderr():
            self._run.log(_numbers(summary), step=int(summary["step"]))
            self._run.finish()


LOGGERS: Record = {"wandb": _Wandb, "mlflow": _Mlflow, "trackio": _Trackio}


@contextlib.contextmanager
def _to_stderr() -> Generator[None]:
    """What a tracker prints does not mix with results on stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _numbers(summary: Mapping[str, Json]) -> dict[str, float]:
    """The numbers of a summary by names that no curve has."""
    return {f"summary/{k}": v for k, v in summary.items() if not isinstance(v, str | bool)}


def _slug(name: str) -> str:
    """A name that trackers take for a project."""
    return re.sub(r"[^\w.-]", "-", name) or "jaxcnn"


def _key(name: str) -> str:
    """A name that MLflow takes for a metric: other characters become _."""
    return re.sub(r"[^\w./ -]", "_", name)
