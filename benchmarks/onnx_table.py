"""Models by name as ONNX: how far ONNX Runtime is from JAX, how large the file is, how long each
takes; and what 8 bits cost ResNet-8.

    python benchmarks/onnx_table.py resnet18 vgg11_bn       # (default: one of each family)
    python benchmarks/onnx_table.py --rounds 0 --side 32 densenet201    # no times, small pictures
    python benchmarks/onnx_table.py --int8 digits --seeds 3
    python benchmarks/onnx_table.py --int8 digits --network resnet18

Weights are fresh ones, with BatchNorm's statistics those of one batch, so that the outputs are of
order 1. Differences: largest over 1 and 7 rows, relative to the largest output; JAX answers 7 rows,
of which the first is also asked of the file by itself. Times: of a call on 8 rows in host memory
until the answer lies there, medians and quartiles over `--rounds` blocks of both in turns, as
`bench` makes them (jaxcnn.bench.timing), on all threads that this process may use. JAX is started
as `launch.py` starts it, and its weights are arguments of the call, as `predict` has them.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcnn
from jaxcnn.bench.timing import Timer, alternate, fitting_steps, order, timing
from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.made.digits import Digits
from jaxcnn.models import MODELS, TOKEN_MODELS, build
from jaxcnn.models.resnet import resnet18, resnet_cifar
from jaxcnn.ops.convolution import current_formulation, formulation
from jaxcnn.runs.agreement import apart
from jaxcnn.runs.environment import prepare_process
from jaxcnn.runs.export import Traced
from jaxcnn.runs.onnx_export.proto import to_onnx
from jaxcnn.runs.onnx_export.runtime import answers, session
from jaxcnn.tasks.classification import Classification

FAMILIES = (
    *("sigmoid_mlp", "lenet5", "lenet5_modern", "rgb_digit_net", "fashion_cnn", "alexnet"),
    *("vgg11_bn", "googlenet", "inception_v3", "resnet18", "resnext50_32x4d", "seresnet50"),
    *("resnetv2_50", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "convnext_tiny"),
    *("efficientnet_b0", "resnet_cifar", "wide_resnet28_10", "densenet_cifar", "speednet"),
    *("unet", "text_cnn", "char_cnn", "fcn_1d", "resnet_1d", "c3d", "r3d_18", "r2plus1d_18"),
    "small_video_net",
)
# of those that take no smaller ones
SIDES = {"alexnet": 227, "alexnet_ungrouped": 227, "inception_v3": 299, "c3d": 112}
SIDES |= {"googlenet": 96, "r3d_18": 32, "r2plus1d_18": 32}
SIDE = 64  # of all other photographs
ROWS = 8


def shape_of(name: str, side: int) -> tuple[int, ...]:
    """The shape of one input, with pictures of that side where the network takes any."""
    shape = build(name)[1]
    if len(shape) < 3:
        return shape
    side = SIDES.get(name, min(side, shape[-2]))
    return (*shape[:-3], side, side, shape[-1])


def ready(model: Any, x: np.ndarray) -> Any:
    """Fresh variables; BatchNorm's statistics are those of the rows `x`. A running statistic is
    m * old + (1 - m) * batch: two old ones tell m.
    """
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), x[:1])
    if "batch_stats" not in variables:
        return variables

    @jax.jit
    def after(variables: Any, old: float, x: jax.Array) -> Any:
        given = jax.tree.map(lambda s: jnp.full_like(s, old), variables["batch_stats"])
        keys = {"dropout": jax.random.key(1)}
        given = {**variables, "batch_stats": given}
        return model.apply(given, x, train=True, rngs=keys, mutable=["batch_stats"])[1]

    zero, one = (after(variables, old, x) for old in (0.0, 1.0))
    found = jax.tree.map(lambda a, b: a / jnp.maximum(1 - (b - a), 1e-6), zero, one)
    return {**variables, **found}


def timer(call: Callable[[], Any]) -> Timer:
    """Seconds of so many calls, after the threads of the other have stopped to wait for work."""

    def block(steps: int) -> float:
        time.sleep(0.05)
        start = time.perf_counter()
        for _ in range(steps):
            call()
        return time.perf_counter() - start

    return block


def in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> str:
    """The cells of ONNX Runtime's time, JAX's, their ratio (ours by theirs), what is established,
    and how many blocks stayed disturbed.
    """
    timers = {"theirs": timer(theirs), "ours": timer(ours)}
    steps = max(fitting_steps(each, block_seconds=0.25) for each in timers.values())
    blocks = alternate(timers, steps=steps, rounds=rounds)
    found = {name: timing(taken, batch_size=ROWS) for name, taken in blocks.items()}
    cells = []
    for each in found.values():
        low, high = each["ms_quartiles"]
        cells.append(f"{each['ms_per_step']:.3g} ({low:.3g} to {high:.3g})")
    ratio = found["ours"]["ms_per_step"] / found["theirs"]["ms_per_step"]
    disturbed = sum(each["disturbed_blocks"] for each in found.values())
    return f"{' | '.join(cells)} | {ratio:.2f} | {order(*reversed(found.values()))} | {disturbed} |"


def row(name: str, *, side: int, rounds: int, threads: int) -> str:
    """A line of the table."""
    model, shape = build(name)[0], shape_of(name, side)
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, *shape)).astype(np.float32)
    if name in TOKEN_MODELS:
        x = random.integers(1, 50, (ROWS, *shape)).astype(np.int32)
    variables = ready(model, x)

    def function(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"y": model.apply(variables, batch["x"], train=False)}

    (rows,) = jax.export.symbolic_shape("rows")
    traced = Traced(
        lambda b: (function(b), None), {"x": jax.ShapeDtypeStruct((rows, *shape), x.dtype)}, rows
    )
    start = time.perf_counter()
    with formulation("natural"):
        proto, _ = to_onnx(function, traced.batch, rows=rows)
        blob = proto.SerializeToString()
        made = time.perf_counter() - start
        running = session(blob, threads=threads)
        expected = jax.device_get(jax.jit(function)({"x": x[:7]}))["y"]
    pairs = [(expected[:n], answers(running, {"x": x[:n]})["y"]) for n in (1, 7)]
    worst, scale = max(apart(*pair)[0] for pair in pairs), float(np.abs(expected).max())
    size = "x".join(map(str, shape))
    line = f"| {name} | {size} | {worst:.1e} | {scale:.2g} | {len(blob) / 1e6:.1f} | {made:.1f} |"
    if not rounds:
        return line
    ours = jax.jit(partial(model.apply, train=False))
    cells = in_turns(
        lambda: jax.device_get(ours(variables, x)), lambda: answers(running, {"x": x}), rounds
    )
    return f"{line} {cells}"


NETWORKS = {
    "resnet8": partial(resnet_cifar, depth=8),
    "resnet18": partial(resnet18, num_classes=10, stem="cifar"),
}


def in_8_bits(network: str, data: str, seed: int, folder: str) -> str:
    """Train a network, write it in 8 bits; a line of the second table."""
    digits = data == "digits"
    e = Experiment(
        model=NETWORKS[network](),
        task=Classification(num_classes=10),
        data=Digits() if digits else Tfds("fashion_mnist", train="train[:20000]", eval="test"),
        augment=(partial(augment.shift, pixels=2),),
        optimizer=partial(optax.adamw, learning_rate=3e-3, weight_decay=1e-4),
        schedule=partial(schedules.cosine, warmup=0.1),
        batch_size=64 if digits else 128,
        epochs=12 if digits else 2,
        seed=seed,
    )
    run = jaxcnn.train(e, folder, quiet=True)
    whole = run.export(f"{folder}/float32.onnx", format="onnx")
    small = run.export(f"{folder}/int8.onnx", format="onnx", int8=256)
    sizes = [os.path.getsize(result["file"]) / 1e6 for result in (whole, small)]
    a, b, jax_own = small["int8"]["float32"], small["int8"]["int8"], run.summary["eval"]["accuracy"]
    return (
        f"| {network}, {data} | {seed} | {jax_own:.4f} | {a:.4f} | {b:.4f} | {100 * (b - a):+.2f} "
        f"| {sizes[0]:.2f} | {sizes[1]:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="MODEL")
    parser.add_argument("--int8", choices=("digits", "fashion_mnist"))
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet8", help="in 8 bits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=SIDE, help="of pictures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="0: no times")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    prepare_process()  # XLA's flags, and malloc's settings, which are both sides'
    if args.int8:
        print("| network, data | seed | JAX | ONNX float32 | int8 | points | MB | MB int8 |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                print(in_8_bits(args.network, args.int8, seed, f"{folder}/run"), flush=True)
        return
    print(f"ours: formulation {current_formulation()!r}; {ROWS} rows, {args.threads} threads")
    titles = ["model", "input", "difference", "largest output", "MB", "s to write"]
    if args.rounds:
        titles += ["ONNX Runtime ms", "JAX ms", "ratio", "JAX is", "disturbed blocks"]
    print(f"| {' | '.join(titles)} |")
    print(f"|{' --- |' * len(titles)}")
    for name in args.names or FAMILIES:
        if name not in MODELS:
            parser.error(f"{name!r}: there is no such model")
        print(row(name, side=args.side, rounds=args.rounds, threads=args.threads), flush=True)
        jax.clear_caches()


if __name__ == "__main__":
    main()
