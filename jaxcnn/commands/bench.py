"""`bench`: how fast an experiment or a model trains and infers here, and how fast the same network
does so in PyTorch and Keras; and how fast each augmentation is.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jaxcnn.errors import ConfigError, ResourceError, did_you_mean
from jaxcnn.runs import code
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py bench fashion_cnn --batch-size 32,64 --peer torch"


def add_arguments(parser: Any) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="EXPERIMENT|MODEL",
        help=f"experiments or models by name (default: {code.DEFAULT}), or 'augment': each "
        "augmentation by itself, of 32x32 and 224x224 images or of shape=H,W,C; or 'data' and "
        "experiments: how fast their examples are read and decoded",
    )
    parser.set_defaults(overrides=[])  # PATH=VALUE, found among the names
    parser.add_argument(
        "--batch-size",
        metavar="N,…|auto",
        help="images a step; auto: 8, 16, … until memory ends (default: the experiment's)",
    )
    parser.add_argument(
        "--dtype", metavar="NAME,…", help="float32, bfloat16 or both (default: the experiment's)"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        choices=("torch", "keras"),
        help="also time the same network there",
    )
    parser.add_argument(
        "--tuning",
        choices=("users", "tuned", "both"),
        help="peers in the environment of their users, or with our settings of malloc and XLA "
        "(default: tuned; of a suite: both)",
    )
    parser.add_argument(
        "--torch-compile",
        action="store_true",
        help="also time PyTorch through torch.compile (takes minutes to compile)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="steps of a block (default: as many as last half a second)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=7,
        metavar="N",
        help="blocks of each, alternating (default: 7)",
    )
    parser.add_argument(
        "--suite",
        choices=("cpu", "accelerator"),
        help="measure all of its rows, or those of the networks named, on noise; a call cut short "
        "is taken up again",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where a suite's results are written, row by row (default: results)",
    )
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="begin no row of a suite after so many minutes"
    )
    parser.add_argument(
        "--toy",
        action="store_true",
        help="tiny networks and images: tries a suite, says nothing of speed",
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FOLDER",
        help="also write a trace of some steps of each, for xprof and Perfetto",
    )
    data = parser.add_mutually_exclusive_group()
    data.add_argument(
        "--synthetic",
        action="store_true",
        help="random examples of the same shape (models have no others)",
    )
    data.add_argument(
        "--real-data", action="store_true", help="the experiment's own data (its default)"
    )
    form = parser.add_mutually_exclusive_group()
    for name in ("json", "csv", "markdown"):
        form.add_argument(
            f"--{name}",
            action="store_const",
            dest="form",
            const=name,
            help=f"print {name.upper() if name != 'markdown' else 'a table'}",
        )


def main(args: Any) -> int:
    names = [name for name in args.names if "=" not in name or name.endswith(".py")]
    args.overrides = [name for name in args.names if name not in names] + args.overrides
    check_numbers(args)
    if names[:1] not in (["augment"], ["data"]):
        check_peers(args)
    check_folder("--trace", args.trace)
    outside = dict(os.environ)  # in which the users of peers run them, with as many threads
    prepare_process()
    outside["NPROC"] = os.environ["NPROC"]
    if args.peer:  # on one accelerator with us
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        outside.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if args.suite:
        return bench_suite(args, names, outside)
    if args.out or args.minutes is not None or args.toy:
        raise ConfigError("--out, --minutes and --toy belong to --suite; add --suite cpu")
    if names[:1] == ["augment"]:
        return bench_augmentations(args, names[1:])
    if names[:1] == ["data"]:
        return bench_data(args, names[1:])
    from jaxcnn.bench import report
    from jaxcnn.bench.process import Peer, environments, require
    from jaxcnn.bench.subjects import choose
    from jaxcnn.bench.sweep import results
    from jaxcnn.runs.profiling import cut_short

    peers = list(dict.fromkeys(args.peer))
    for peer in peers:
        require(peer)
    subjects = [
        choose(name, args.overrides, bare=bool(peers), synthetic=args.synthetic)
        for name in names or [code.DEFAULT]
    ]
    with _printed(args.form, report.FORMS) as found, contextlib.ExitStack() as stack:
        for result in results(
            subjects,
            [
                stack.enter_context(Peer(peer, tuning=tuning, environment=environment))
                for peer in peers
                for tuning, environment in environments(args.tuning or "tuned", outside).items()
            ],
            dtypes=args.dtype.split(",") if args.dtype else (),
            batch_size=args.batch_size,
            torch_compile=args.torch_compile,
            steps=args.steps,
            rounds=args.rounds,
            trace=args.trace,
            say=partial(print, file=sys.stderr),
        ):
            found.append(result)
            if not args.form:
                print(report.as_text(result), end="\n\n", flush=True)
    if args.trace:
        print(f"traces: {args.trace}", *cut_short(args.trace), sep="\n", file=sys.stderr)
    if not any("train" in result for result in found):
        raise ResourceError("out of memory at every batch size; choose a smaller --batch-size")
    return 0


def bench_suite(args: Any, names: list[str], outside: dict[str, str]) -> int:
    """`bench --suite cpu|accelerator [NAME …]`. Errors: ConfigError for options that a suite
    decides itself; those of the suite.
    """
    refused = {
        "--batch-size": args.batch_size,
        "--dtype": args.dtype,
        "--real-data": args.real_data,
        "--trace": args.trace,
        "PATH=VALUE": args.overrides,
    }
    if given := [option for option, value in refused.items() if value]:
        raise ConfigError(f"--suite {args.suite}: takes no {', '.join(given)}; its rows say them")
    folder = args.out or Path("results")
    check_folder("--out", folder)
    from jaxcnn.bench import report, suites
    from jaxcnn.bench.process import require

    peers = tuple(dict.fromkeys(args.peer))
    for peer in peers:
        require(peer)
    settings = suites.Settings(
        suite=args.suite,
        peers=peers,
        tuning=args.tuning or "both",
        torch_compile=args.torch_compile,
        rounds=args.rounds,
        steps=args.steps,
        toy=args.toy,
    )
    found = suites.run(
        settings,
        suites.chosen(args.suite, names),
        folder=folder,
        outside=outside,
        minutes=args.minutes,
        say=partial(print, file=sys.stderr, flush=True),
    )
    print(report.FORMS[args.form or "markdown"](found))
    return 0


@contextlib.contextmanager
def _printed(
    form: str | None, forms: Mapping[str, Callable[[list[Any]], str]]
) -> Iterator[list[Any]]:
    """A list of results, printed at the end in a form, where a later one fails or is interrupted,
    too.
    """
    found: list[Any] = []
    try:
        yield found
    finally:
        if form and found:
            print(forms[form](found), flush=True)


def bench_augmentations(args: Any, names: list[str]) -> int:
    """`bench augment [NAME …] [shape=H,W,C]`. Errors: ConfigError."""
    from jaxcnn.bench import augmentation, report

    known = augmentation.augmentations(32, 32, 3)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"bench augment: {name!r} is none of {', '.join(known)}{did_you_mean(name, known)}"
            )
    refused = args.peer or args.dtype or args.real_data or args.trace
    refused = refused or args.steps or args.tuning or args.torch_compile
    if refused or not (args.batch_size or "1").isdecimal():
        raise ConfigError(
            "bench augment: takes one --batch-size N and --rounds, not --peer, --tuning, "
            "--torch-compile, --dtype, --real-data, --steps or --trace"
        )
    options: dict[str, Any] = {"rounds": args.rounds, "names": tuple(names)}
    if args.batch_size:
        options["batch_size"] = int(args.batch_size)
    for assignment in args.overrides:
        path, _, text = assignment.partition("=")
        numbers = text.split(",")
        if (
            path != "shape"
            or len(numbers) != 3
            or not all(n.isdecimal() and len(n) < 10 and int(n) for n in numbers)
        ):
            raise ConfigError(f"bench augment: {assignment}: must be shape=HEIGHT,WIDTH,CHANNELS")
        options["shapes"] = (tuple(map(int, numbers)),)
    with _printed(args.form, report.FORMS | {"markdown": augmentation.as_markdown}) as found:
        for result in augmentation.results(**options):
            found.append(result)
            if not args.form:
                print(augmentation.as_text(result), flush=True)
    return 0


def bench_data(args: Any, names: list[str]) -> int:
    """`bench data EXPERIMENT … [PATH=VALUE …]`. Errors: ConfigError; those of the data."""
    from jaxcnn.bench import loading, report

    refused = args.peer or args.dtype or args.synthetic or args.trace or args.tuning
    refused = refused or args.torch_compile
    if refused or not (args.batch_size or "1").isdecimal():
        raise ConfigError(
            "bench data: takes one --batch-size N, --steps and --rounds, not --peer, --tuning, "
            "--torch-compile, --dtype, --synthetic or --trace"
        )
    overrides = list(args.overrides)
    if args.batch_size:
        overrides.append(f"batch_size={args.batch_size.split(',')[0]}")
    with _printed(args.form, report.FORMS | {"markdown": loading.as_markdown}) as found:
        for name in names or [code.DEFAULT]:
            e = code.load(code.find(name), overrides=overrides)
            found.append(loading.result(name, e, rounds=args.rounds, steps=args.steps))
            if not args.form:
                print(loading.as_text(found[-1]), flush=True)
    return 0


def check_folder(option: str, folder: Path | None) -> None:
    """Make the folder that an option names. Errors: ResourceError, before minutes are spent on
    timing.
    """
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{option} {folder}: cannot be made ({error.strerror}); choose another folder"
        ) from error


def check_peers(args: Any) -> None:
    """Errors: ConfigError for options of peers that are not there."""
    if args.torch_compile and "torch" not in args.peer:
        raise ConfigError("--torch-compile: belongs to --peer torch; add it")
    if args.tuning and not args.peer:
        raise ConfigError(f"--tuning {args.tuning}: belongs to --peer; add --peer torch")


def check_numbers(args: Any) -> None:
    """Errors: ConfigError for arguments that cannot be meant."""
    if args.minutes is not None and not 0 < args.minutes < float("inf"):
        raise ConfigError(f"--minutes {args.minutes:g}: must be a number above 0")
    for option, value in (("--steps", args.steps), ("--rounds", args.rounds)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} {value}: must be at least 1")
    for part in (args.batch_size or "1").split(","):
        if args.batch_size != "auto" and not (
            part.isdecimal() and len(part) < 10 and int(part) >= 1
        ):
            raise ConfigError(
                f"--batch-size {args.batch_size[:80]}: must be positive integers separated by "
                "commas, or 'auto'"
            )
    for part in (args.dtype or "float32").split(","):
        if part not in ("float32", "bfloat16"):
            raise ConfigError(
                f"--dtype {args.dtype}: must be float32, bfloat16, or both separated by a comma"
            )
