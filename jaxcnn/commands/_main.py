"""The command line: `jaxcnn VERB …`, the same as `python launch.py VERB …`.

Each verb is the module of its name in this package, with EXAMPLE, `add_arguments(parser)` and
`main(args) -> exit code`. Nothing heavy is imported before a verb runs, so that --help answers at
once.
"""

import argparse
import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from jaxcnn import __version__
from jaxcnn.errors import (
    ConfigError,
    DependencyError,
    JaxcnnError,
    Preempted,
    ResourceError,
    did_you_mean,
    shown,
)
from jaxcnn.runs.terminal import end_output, ignore_signals, prepare_streams, stop_at_signals

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # nothing more can be written
FREE = "free disk space"
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
MANY = {"overrides": str, "images": str, "names": str, "runs": Path}  # a verb takes any number of
VERBS = {
    "train": "train an experiment, or go on with a run",
    "check": "check an experiment without training: shapes, memory, steps",
    "summary": "table of layers: shapes, parameters, MACs, receptive fields",
    "evaluate": "metrics of a run on a split of its data",
    "report": "a run or a sweep as one HTML page that can be mailed",
    "compare": "what differs between runs: settings, metrics, curves, single examples",
    "predict": "what a run's model says about image files",
    "serve": "a page on this machine that asks a run's model",
    "explain": "what in pictures a run's model looks at; its filters, maps and dreams",
    "checkpoints": "the checkpoints of a run: list, verify, prune",
    "verify": "make steps of a run again, and compare the bits",
    "runs": "the runs below a folder: state, metric, steps, date",
    "list": "the experiments that can be named",
    "models": "the models that can be named: parameters, MACs, input shapes",
    "export": "a model as one file that JAX alone can open",
    "publish": "a model as a folder for others, with a card, as the Hugging Face hub takes it",
    "bench": "training and inference speed, compilation, memory, roofline; PyTorch and Keras "
    "beside it",
    "prepare": "download a TFDS data set and prepare it for training",
    "completion": "a script with which the shell completes verbs, options, experiments",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; print errors as one message with its remedy. Returns the exit code
    (jaxcnn.errors; 0 is success).
    """
    if own := arguments is None:  # a program, not a call from Python
        prepare_streams()
        stop_at_signals()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _dispatch(arguments)
        finally:
            end_output()  # here, where what it may raise is answered
    except Exception as error:
        return _answer(error)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    finally:
        with contextlib.suppress(OSError):
            end_output()
        if own:
            ignore_signals()


def _answer(error: Exception) -> int:
    """Tell the user of an error in one message. Returns the exit code; raises what is a fault of
    the program.
    """
    if isinstance(error, BrokenPipeError):  # the reader of our output went away, e.g. `| head`
        return 0
    if os.environ.get("JAXCNN_DEBUG"):
        raise error
    if isinstance(error, JaxcnnError):
        stopped = isinstance(error, Preempted)  # which is no error
        _say(str(error) if stopped else f"error: {error}")
        return error.exit_code
    if isinstance(error, ModuleNotFoundError) and error.name in ("jax", "flax", "numpy", "optax"):
        _say(
            f"error: {error.name} is not installed for {sys.executable}; activate the environment "
            "that jaxcnn was installed into (. .venv/bin/activate), or: pip install -e ."
        )
        return DependencyError.exit_code
    if isinstance(error, MemoryError):
        return _out_of_memory("the host's memory is full")
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return _out_of_memory(str(error).splitlines()[0])
    if isinstance(error, OSError) and error.errno in FULL:
        what = error.filename2 or error.filename  # a copy's second name is what is written
        reading = what and error.errno == errno.EIO
        verb, remedy = ("read or written", "check the disk") if reading else ("written", FREE)
        _say(f"error: {what or 'the output'} cannot be {verb} ({error.strerror}); {remedy}")
        return ResourceError.exit_code
    if (
        isinstance(error, OSError)
        and error.filename
        and error.errno in (errno.ENAMETOOLONG, *CLOSED)
    ):
        named = error.errno == errno.ENAMETOOLONG
        remedy = "give another name" if named else "see whose it is, or choose another place"
        _say(f"error: {shown(str(error.filename))}: {error.strerror}; {remedy}")
        return ConfigError.exit_code if named else ResourceError.exit_code
    raise error


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # there is nobody left to tell
        print(text, file=sys.stderr, flush=True)


def _out_of_memory(reason: str) -> int:
    _say(
        f"error: out of memory ({reason}); choose a smaller batch_size, or the same with "
        "accumulate=2 or more"
    )
    return ResourceError.exit_code


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        arguments = ["train"]
    verb = arguments[0]
    if not verb.startswith("-") and verb not in VERBS:
        hint = (
            f"; to train it: python launch.py train {verb}"
            if verb.endswith(".py")
            else did_you_mean(verb, VERBS)
        )
        raise ConfigError(f"no verb {verb!r}; there are: {', '.join(VERBS)}{hint}")
    return _parse(arguments)


def parser_of(names: Collection[str]) -> argparse.ArgumentParser:
    """The parser of the command line, in which the verbs `names` have their arguments."""
    parser = argparse.ArgumentParser(
        prog="jaxcnn",
        description="Train convolutional networks with JAX. Without a verb: train LeNet-5 on the "
        "embedded digits.",
        epilog="example: python launch.py train experiments/mnist_lenet5.py epochs=2\neach verb "
        "has its own --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jaxcnn {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, text in VERBS.items():
        child = verbs.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in names:
            module = importlib.import_module(f"jaxcnn.commands.{name}")
            child.epilog = f"example: {module.EXAMPLE}"
            module.add_arguments(child)
    return parser


def _parse(arguments: list[str]) -> int:
    parser = parser_of(arguments[:1])
    args, unknown = parser.parse_known_args(arguments)
    # argparse takes positional arguments in one piece; ours may also follow options
    # what follows --, which argparse leaves in, is no option however it begins
    plain = arguments[arguments.index("--") :] if "--" in arguments else []
    unknown = [a for a in unknown if a != "--"]
    later = [a for a in unknown if not a.startswith("-") or a in plain]
    for name, kind in MANY.items():
        if hasattr(args, name):
            taken = [a for a in later if name != "overrides" or "=" in a]
            setattr(args, name, [*getattr(args, name), *map(kind, taken)])
            later = [a for a in later if a not in taken]
            unknown = [a for a in unknown if a not in taken]
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    return importlib.import_module(f"jaxcnn.commands.{args.verb}").main(args)


if __name__ == "__main__":
    sys.exit(main())
