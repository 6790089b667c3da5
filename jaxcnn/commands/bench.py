"""`bench`: how fast an experiment or a model trains and infers here, and how fast the same network
does so in PyTorch and Keras.
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from jaxcnn.errors import ConfigError, JaxcnnError, ResourceError
from jaxcnn.runs import code
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py bench fashion_cnn --batch-size 32,64 --peer torch"

SLOWEST_STEP = (
    10.0  # seconds; a sweep of batch sizes ends there, too: larger ones would tell nothing new
)


def add_arguments(parser: Any) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="EXPERIMENT|MODEL",
        help=f"experiments or models by name (default: {code.DEFAULT})",
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
    outside = dict(os.environ)  # peers run as their users would run them, with as many threads
    prepare_process()
    outside["NPROC"] = os.environ["NPROC"]
    if args.peer:  # on one accelerator with us
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        outside.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from jaxcnn.bench.process import Peer, require

    peers = list(dict.fromkeys(args.peer))
    for peer in peers:
        require(peer)
    found = []
    with contextlib.ExitStack() as stack:
        running = {peer: stack.enter_context(Peer(peer, outside)) for peer in peers}
        for result in results(args, names or [code.DEFAULT], running):
            found.append(result)
            if not args.form:
                print(as_text(result), end="\n\n", flush=True)
    forms = {"json": as_json, "csv": as_csv, "markdown": as_markdown}
    if args.form:
        print(forms[args.form](found))
    if not any("train" in result for result in found):
        raise ResourceError("out of memory at every batch size; choose a smaller --batch-size")
    return 0


def check_numbers(args: Any) -> None:
    """Errors: ConfigError for arguments that cannot be meant."""
    for option, value in (("--steps", args.steps), ("--rounds", args.rounds)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} {value}: must be at least 1")
    for part in (args.batch_size or "1").split(","):
        if args.batch_size != "auto" and not (part.isdigit() and int(part) >= 1):
            raise ConfigError(
                f"--batch-size {args.batch_size}: must be positive integers separated by commas, "
                "or 'auto'"
            )
    for part in (args.dtype or "float32").split(","):
        if part not in ("float32", "bfloat16"):
            raise ConfigError(
                f"--dtype {args.dtype}: must be float32, bfloat16, or both separated by a comma"
            )


def results(args: Any, names: list[str], peers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One result after another: names, then dtypes, then batch sizes. One that finds too little
    memory has "error" in place of numbers.
    """
    from jaxcnn.bench import measure, roofline
    from jaxcnn.bench.networks import layers_of
    from jaxcnn.ops.convolution import current_formulation
    from jaxcnn.runs import environment

    where = {"environment": environment.describe() | {"convolution": current_formulation()}}
    chosen = {
        name: choose(name, args.overrides, bare=bool(peers), synthetic=args.synthetic)
        for name in names
    }
    layers = {name: layers_of(e.model) if peers else [] for name, (e, _, _) in chosen.items()}
    peaks: dict[str, dict[str, float]] = {}
    for name, (experiment, dropped, source) in chosen.items():
        for dtype in (args.dtype or experiment.compute_dtype).split(","):
            if dtype not in peaks:
                peaks[dtype] = roofline.measure_peak(dtype)
            for batch_size in batch_sizes(args.batch_size, experiment):
                e = dataclasses.replace(experiment, batch_size=batch_size, compute_dtype=dtype)
                head = {
                    "name": name,
                    "model": type(e.model).__name__,
                    "dtype": dtype,
                    "batch_size": batch_size,
                    "dropped": dropped,
                }
                head |= {"synthetic": source.synthetic, "peak": peaks[dtype]}
                try:
                    for peer in peers.values():
                        open_peer(peer, e, layers[name], compile=args.torch_compile)
                    result = measure.measure(
                        e,
                        source=source.open(),
                        peak=peaks[dtype],
                        peers=peers,
                        steps=args.steps,
                        rounds=args.rounds,
                    )
                except (RuntimeError, MemoryError) as error:
                    if not roofline.out_of_memory(error):
                        raise
                    yield {**head, "error": f"out of memory: {str(error).splitlines()[0]}", **where}
                    break
                yield {**head, **result, **where}
                if (
                    args.batch_size == "auto"
                    and result["train"]["ms_per_step"] > SLOWEST_STEP * 1e3
                ):
                    print(
                        f"the sweep ends: a step takes longer than {SLOWEST_STEP:g} s",
                        file=sys.stderr,
                    )
                    break


def batch_sizes(text: str | None, e: Any) -> Iterator[int]:
    """The batch sizes that --batch-size asks for, smallest first, so that a peak of memory belongs
    to the last.
    """
    if text == "auto":
        yield from (8 << i for i in range(40))
    elif text:
        yield from sorted({int(part) for part in text.split(",")})
    else:
        yield e.batch_size


@dataclasses.dataclass
class Examples:
    """Where batches come from; opened when first needed."""

    experiment: Any
    synthetic: bool
    opened: Any = None

    def open(self) -> Any:
        """The training split's source, or random examples like it."""
        if self.opened is None:
            from jaxcnn.bench import measure
            from jaxcnn.runs.loop import open_checked

            self.opened = (
                measure.Noise(self.experiment, 256)
                if self.synthetic
                else open_checked(self.experiment, "train")
            )
        return self.opened


def choose(
    name: str, overrides: list[str], *, bare: bool, synthetic: bool
) -> tuple[Any, list[str], Examples]:
    """(Experiment, what was taken from it, its examples) of an experiment or a model by name.

    `bare`, for a comparison: without what a peer does not do, such as augmentation. Errors:
    ConfigError.
    """
    from jaxcnn import models
    from jaxcnn.runs.check import abstract_state

    by_name = name in models.MODELS and name not in code.files()
    e = model_experiment(name, overrides) if by_name else code.load(code.find(name), overrides)
    dropped = []
    if bare:
        plain = {"augment": (), "clip_norm": None, "accumulate": 1, "ema": None, "rates": ()}
        dropped = [field for field, value in plain.items() if getattr(e, field) != value]
        e = dataclasses.replace(e, **plain)
    abstract_state(e)  # a clear error where model and data do not fit
    return e, dropped, Examples(e, synthetic or by_name)


def model_experiment(name: str, overrides: list[str]) -> Any:
    """An experiment that trains a model by name on noise: SGD with momentum, 32 images a step;
    data.shape=H,W,C changes their size.
    """
    from functools import partial

    import jax

    from jaxcnn import models
    from jaxcnn.bench import measure
    from jaxcnn.core import optimizers
    from jaxcnn.core.experiment import Experiment
    from jaxcnn.core.override import override_all
    from jaxcnn.data.made.synthetic import Synthetic
    from jaxcnn.tasks.classification import Classification

    if name in getattr(models, "TOKEN_MODELS", ()):
        raise ConfigError(
            f"{name}: takes tokens, not images; bench an experiment that uses it (`python "
            "launch.py list`)"
        )
    model, shape = models.build(name)
    optimizer = partial(optimizers.sgd, learning_rate=0.001, momentum=0.9)
    e = Experiment(
        model=model,
        task=measure.SquaredOutputs(),
        data=Synthetic(shape=shape),
        optimizer=optimizer,
        batch_size=32,
        steps=1000,
    )
    e = override_all(e, overrides)
    try:
        image = jax.ShapeDtypeStruct((2, *e.data.shape), "float32")
        outputs, _ = jax.eval_shape(
            lambda x: e.model.init_with_output(jax.random.key(0), x, train=False), image
        )
    except JaxcnnError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{name}: refuses images of shape {list(e.data.shape)}: {error}; choose "
            "data.shape=HEIGHT,WIDTH,CHANNELS"
        ) from error
    if isinstance(outputs, jax.ShapeDtypeStruct) and outputs.ndim == 2 and outputs.shape[1] > 1:
        classes = outputs.shape[1]
        e = dataclasses.replace(
            e,
            task=Classification(num_classes=classes),
            data=dataclasses.replace(e.data, num_classes=classes),
        )
    return e


def open_peer(peer: Any, e: Any, layers: list, *, compile: bool) -> None:
    """Build the experiment's network in a peer. Errors: ConfigError if it came out with another
    number of parameters.
    """
    import jax

    from jaxcnn.core.forward import model_inputs, prepare
    from jaxcnn.runs.check import abstract_state

    if not hasattr(e.task, "label_smoothing"):
        raise ConfigError(
            f"--peer: the task {type(e.task).__name__} has no counterpart; there is one for "
            "Classification"
        )
    batch = {
        name: jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for name, s in e.data.spec().items()
    }
    (image,) = jax.eval_shape(lambda b: model_inputs(e, prepare(e, b)), batch)
    peer.open(
        e,
        layers,
        image.shape[1:],
        compile=compile,
        device="cpu" if jax.default_backend() == "cpu" else "gpu",
    )
    params = sum(x.size for x in jax.tree.leaves(abstract_state(e).params))
    if peer.params != params:
        raise ConfigError(
            f"--peer {peer.name}: its network has {peer.params:,} parameters, ours {params:,}: "
            "they are not the same network"
        )


# ---- printing ------------------------------------------------------------------------------------


def as_json(found: list[dict]) -> str:
    """The result as one object; several as a list."""
    return json.dumps(found[0] if len(found) == 1 else found)


def flat(result: dict, prefix: str = "") -> dict[str, Any]:
    """The numbers and words of a nested result by dotted names."""
    row = {}
    for name, value in result.items():
        if isinstance(value, dict):
            row |= flat(value, f"{prefix}{name}.")
        else:
            row[prefix + name] = " ".join(map(str, value)) if isinstance(value, list) else value
    return row


def as_csv(found: list[dict]) -> str:
    """A line for each result, a column for each number of any of them; the environment is left to
    --json.
    """
    import csv
    import io

    rows = [
        flat({name: value for name, value in result.items() if name != "environment"})
        for result in found
    ]
    out = io.StringIO()
    writer = csv.DictWriter(
        out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def as_markdown(found: list[dict]) -> str:
    """A table with a line for each result; a column for each peer."""
    peers = list(dict.fromkeys(name for result in found for name in result.get("peers", ())))
    header = [
        "model",
        "dtype",
        "batch",
        "train ms (quartiles)",
        "images/s",
        "inference ms",
        "images/s",
        "compile s",
        "share of peak",
        "memory",
    ]
    lines = [[*header, *(f"time / {peer}'s" for peer in peers)]]
    lines.append(["---"] * len(lines[0]))
    for r in found:
        line = [r["name"], r["dtype"], str(r["batch_size"])]
        if "error" in r:
            lines.append([*line, "out of memory", *["–"] * (len(lines[0]) - 4)])
            continue
        t, i = r["train"], r["inference"]
        line += [
            f"{spread(t)}",
            f"{t['images_per_second']:,.0f}",
            f"{i['ms_per_step']:.3g}",
            f"{i['images_per_second']:,.0f}",
        ]
        line += [
            f"{r['compile_seconds']:.2f}",
            f"{t['share_of_peak']:.0%}",
            size(r["memory"]["compiled_bytes"]["train"]),
        ]
        lines.append(
            [
                *line,
                *(
                    f"{r['peers'][p]['ratio']:.2f} ({r['peers'][p]['variant']})"
                    if p in r["peers"]
                    else "–"
                    for p in peers
                ),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(t: dict) -> str:
    """Median and quartiles in milliseconds."""
    low, high = t["ms_quartiles"]
    return f"{t['ms_per_step']:.4g} ({low:.4g}–{high:.4g})"


def size(count: int | None) -> str:
    """Bytes as MiB."""
    return "unknown" if count is None else f"{count / 2**20:,.1f} MiB"


def as_text(r: dict) -> str:
    """One result for a reader at a terminal."""
    where = r["environment"]
    title = (
        f"{r['name']}: {r['model']}, {r['dtype']}, {r['batch_size']} images a step, "
        f"{'noise' if r['synthetic'] else 'real data'}"
    )
    lines = [
        title,
        f"on {where['device']}, NPROC={where['NPROC']}, convolution={where['convolution']}, "
        f"XLA_FLAGS={where['XLA_FLAGS']!r}",
    ]
    if r["dropped"]:
        lines.append(f"left out, since peers do without: {', '.join(r['dropped'])}")
    if "error" in r:
        return "\n".join([*lines, f"  {r['error']}"])
    lines.append(f"  {r['params']:,} parameters, {r['macs']:,} multiply-accumulates an image")
    for kind in ("train", "inference"):
        t, c = r[kind], r["compile"][kind]
        lines.append(
            f"  {kind:10} {t['images_per_second']:>12,.1f} images/s  {spread(t)} ms a step, "
            f"{t['rounds']} blocks of {t['steps']}"
        )
        roof = (
            ""
            if t["bound"] is None
            else f", {t['arithmetic_intensity']:.3g} FLOP/byte: {t['bound']}-bound, "
            f"{t['share_of_roof']:.0%} of the roof"
        )
        lines.append(
            f"  {'':10} {t['flops_per_second'] / 1e9:.4g} GFLOP/s, {t['share_of_peak']:.1%} of "
            f"the matrix product's{roof}"
        )
        took = ", ".join(f"{part} {c[part]:.2f} s" for part in ("trace", "lower", "compile"))
        lines.append(
            f"  {'':10} {took} (persistent cache: {c['cache']}), "
            f"{size(r['memory']['compiled_bytes'][kind])}"
        )
    peak, memory = r["peak"], r["memory"]
    lines.append(
        f"  {'peak':10} {peak['flops_per_second'] / 1e9:.4g} GFLOP/s (matrix product), "
        f"{peak['bytes_per_second'] / 1e9:.4g} GB/s (copy)"
    )
    lines.append(
        f"  {'memory':10} device {size(memory['device_peak_bytes'])}, process "
        f"{size(memory['process_peak_bytes'])} at most"
    )
    lines.append(f"  {'feeding':10} {r['data_stall_share']:.1%} of a loop's time, at most")
    for name, peer in r["peers"].items():
        for kind, c in (("train", peer), ("inference", peer["inference"])):
            variants = ", ".join(f"{variant} {spread(t)}" for variant, t in c["variants"].items())
            lines.append(
                f"  {name:10} {kind}: our time / the best of its = {c['ratio']:.2f}; ms a step: "
                f"{variants} ({peer['version']})"
            )
    if r["diverged"]:
        lines.append("  the loss became infinite or NaN (on noise it may); times are not affected")
    return "\n".join(lines)
