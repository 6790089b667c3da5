"""Who trains, where it is not this process alone: workers of a sweep, hosts of a run."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxcnn.errors import ConfigError, Preempted
from jaxcnn.runs.environment import prepare_process, recorded

if TYPE_CHECKING:
    from jaxcnn.runs.launch import Launch


def add_arguments(parser: Any) -> None:
    """Those of `train`."""
    apart = parser.add_argument_group(
        "workers",
        "the points of a sweep by processes of their own: --on local --workers 4; with --resume "
        "SWEEP, too",
    )
    apart.add_argument(
        "--on",
        metavar="WHERE",
        help="local (this machine), slurm, ray; commands: print what trains the parts",
    )
    apart.add_argument("--workers", type=int, metavar="N", help="so many at a time")
    apart.add_argument(
        "--resources",
        nargs="+",
        metavar="NAME=VALUE",
        help="for each worker, as submitit (gpus_per_node=1) and Ray (num_gpus=1) name them",
    )
    apart.add_argument(
        "--part", type=int, metavar="K", help="with --resume: train part K of a sweep, nothing else"
    )
    together = parser.add_argument_group(
        "hosts",
        "one run by several processes, each with devices of its own: the same command for each, "
        "with another --process",
    )
    together.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="of process 0; auto: as SLURM, Kubernetes, Open MPI or a TPU pod say",
    )
    together.add_argument("--processes", type=int, metavar="N", help="how many there are")
    together.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")


def on_hosts(args: Any, main: Callable[[Any], int]) -> int:
    """`main(args)`, together with the other hosts where there are some."""
    if args.coordinator is None:
        if args.processes is not None or args.process is not None:
            raise ConfigError("--processes and --process belong to --coordinator HOST:PORT")
        return main(args)
    prepare_process(recorded=recorded(args.resume) if args.resume else None)
    from jaxcnn.runs import hosts

    hosts.connect(args.coordinator, args.processes, args.process)
    try:
        return main(args)
    except Preempted:
        hosts.leave()
        raise
    except BaseException as error:
        interrupted = 130 if isinstance(error, KeyboardInterrupt) else 1
        hosts.leave(code=getattr(error, "exit_code", interrupted))
        raise


def first_alone() -> bool:
    """Part from the other hosts; whether this is the one that goes on."""
    from jaxcnn.runs import hosts

    hosts.leave()
    return hosts.speaks()


def launch_of(args: Any) -> "Launch | None":
    """Who trains a sweep, where the command line says so. Errors: ConfigError."""
    if args.part is not None and (args.resume is None or args.on or args.profile):
        raise ConfigError("--part: belongs to --resume SWEEP, without --on and --profile")
    if args.on is None:
        if args.workers is not None or args.resources:
            raise ConfigError("--workers and --resources belong to --on local, slurm or ray")
        return None
    from jaxcnn.runs.launch import Launch

    Launch(args.on, 1)  # a name that is none is said first
    if args.resume is None and args.sweep is None and args.folds is None:
        raise ConfigError(f"--on {args.on}: trains the points of a --sweep")
    if args.workers is None:
        raise ConfigError(f"--on {args.on}: say how many at a time by --workers N")
    if args.profile:
        raise ConfigError("--profile: traces this process; not with --on")
    resources = {}
    for text in args.resources or ():
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ConfigError(f"--resources {text}: must be name=value")
        resources[name] = _number(value)
    tracks = (word for name in dict.fromkeys(args.track) for word in ("--track", name))
    return Launch(args.on, args.workers, resources, tuple(tracks))


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
