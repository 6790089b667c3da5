"""Where the commands that train the parts of a sweep are started: this machine, SLURM (through
submitit), a Ray cluster. A launcher starts one command and says when it has ended; what a command
does, and what follows from how it ends, it does not know (jaxcnn.runs.launch).

Imports neither JAX nor NumPy: a job's own process, which waits for the command, stays small.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcnn.errors import ConfigError, DependencyError

Resource = str | int | float
KINDS = ("local", "slurm", "ray")
PARENT = "JAXCNN_PARENT"  # the process that waits for a worker
LOST = 256  # for an exit code, where there is none: the machine or the job is gone
TIMEOUT_MIN = 240  # of a SLURM job: submitit's own default, minutes, is meant for trying it out
POLL = 0.2  # seconds


class Job(NamedTuple):
    """A command that was started. ended(): its exit code, None while it runs. stop(): ask it to
    save and end.
    """

    ended: Callable[[], int | None]
    stop: Callable[[], None]


# (command, file to which its output is appended, its place among those that run at a time)
Launcher = Callable[[Sequence[str], Path, int], Job]


def launcher(kind: str, folder: Path, resources: Mapping[str, Resource]) -> Launcher:
    """The launcher of KINDS named `kind`. folder: of what it keeps itself. resources: what each
    worker needs, in the words of submitit's `update_parameters` and of Ray's `options`.

    Errors: ConfigError; DependencyError where its package is missing.
    """
    if kind == "slurm":
        return _slurm(folder, resources)
    if kind == "ray":
        return _ray(resources)
    if kind != "local":
        raise ConfigError(f"--on {kind}: must be one of {', '.join(KINDS)}")
    if resources:
        raise ConfigError(
            f"--resources {' '.join(resources)}: belong to --on slurm and --on ray; workers on "
            "this machine share it, and the devices of CUDA_VISIBLE_DEVICES in turns"
        )
    return _local


def _local(command: Sequence[str], log: Path, place: int) -> Job:
    own = {}
    if len(devices := os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")) > 1:
        own["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    child = start(command, log, own)
    return Job(child.poll, child.terminate)


def _slurm(folder: Path, resources: Mapping[str, Resource]) -> Launcher:
    try:
        import submitit  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DependencyError("--on slurm needs submitit: pip install 'jaxcnn[slurm]'") from None
    given = {"name": "jaxcnn", "timeout_min": TIMEOUT_MIN, "stderr_to_stdout": True, **resources}
    cluster = str(given.pop("cluster", "slurm"))
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(**given)
    except (RuntimeError, ValueError, NameError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"--on slurm: {error}; --resources takes the parameters of submitit, such as "
            "timeout_min=240 gpus_per_node=1 slurm_partition=gpu, and cluster=local to try it "
            "without SLURM"
        ) from error

    def launch(command: Sequence[str], log: Path, place: int) -> Job:
        job = executor.submit(execute, list(command), str(log))

        def ended() -> int | None:
            if not job.done():
                return None
            try:
                return job.result()
            except submitit.core.utils.UncompletedJobError as error:  # or failed
                return _lost(error, log)

        return Job(ended, job.cancel)

    return launch


def _ray(resources: Mapping[str, Resource]) -> Launcher:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DependencyError("--on ray needs Ray: pip install 'jaxcnn[ray]'") from None
    options: dict[str, Any] = dict(resources)
    address = options.pop("address", None)  # none: RAY_ADDRESS, a cluster here, else one is begun
    try:
        # what is lost is started again here, where it is counted
        remote = ray.remote(execute).options(max_retries=0, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"--on ray: {error}; --resources takes options of Ray's tasks, such as num_cpus=4 "
            "num_gpus=1, and address="
        ) from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--on ray: no cluster could be reached ({error})") from error

    def launch(command: Sequence[str], log: Path, place: int) -> Job:
        job = remote.remote(
            list(command), str(log), folder=str(Path.cwd()), environment=dict(os.environ)
        )

        def ended() -> int | None:
            if not ray.wait([job], timeout=0)[0]:
                return None
            try:
                return ray.get(job)
            except ray.exceptions.RayError as error:
                return _lost(error, log)

        return Job(ended, lambda: ray.cancel(job))

    return launch


def _lost(error: Exception, log: Path) -> int:
    """What a job failed of goes to the output of its command."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"error: {text[-1]}\n")
    return LOST


def start(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    *,
    folder: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that a Ctrl-C is this process's alone."""
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **environment, PARENT: str(os.getpid())},
            start_new_session=True,
        )


def execute(
    command: list[str],
    log: str,
    *,
    folder: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command to its end, in a job; its exit code. It is asked to stop where the job is.
    environment: what is not set here is taken from it.
    """
    missing = {k: v for k, v in (environment or {}).items() if k not in os.environ}
    child = start(command, Path(log), missing, folder=folder)
    try:
        while child.poll() is None:
            time.sleep(POLL)
    except BaseException:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(60)
        raise
    return child.returncode


def orphaned() -> bool:
    """Whether the process that waits for this one, if one does, has gone. Errors: ConfigError."""
    parent = os.environ.get(PARENT)
    if parent is not None and not (parent.isascii() and parent.isdecimal() and len(parent) < 20):
        raise ConfigError(
            f"{PARENT}={parent[:80]}: is set by who starts a worker, to the number of its process; "
            "unset it"
        )
    return parent is not None and os.getppid() != int(parent)
