"""Run by test_transforms.py in a process of its own with four simulated devices; prints differences
as JSON.
"""

import dataclasses
import json
import math
import os
import re
import tempfile
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxcnn
from jaxcnn.core import transforms
from jaxcnn.core.memory import call_bytes
from jaxcnn.core.meshes import Layout, arranged
from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError
from jaxcnn.runs.check import pre_flight
from jaxcnn.runs.cost import measure_step
from jaxcnn.runs.scaling import device_share
from jaxcnn.runs.ways import Way
from tests.tiny import TinyNet, arrays, tiny

RATE = "optimizer.learning_rate"


def difference(a, b):
    return max(
        jax.tree.leaves(
            jax.tree.map(
                lambda x, y: float(jnp.abs(x - jax.device_put(y, jax.devices()[0])).max()), a, b
            )
        )
    )


def train(program, state, batches):
    for batch in batches:
        state, metrics = program.train_step(state, batch)
    return jax.device_put(state.replace(key=None), jax.devices()[0]), jax.device_get(metrics)


def main():
    out = {"devices": len(jax.devices())}
    sgd = partial(optax.sgd, learning_rate=0.05, momentum=0.9)
    for name, e in {
        "plain": tiny(model=TinyNet(dropout=0.0), augment=(), optimizer=sgd),
        "dropout and augmentation": tiny(optimizer=sgd),
        "accumulation": tiny(optimizer=sgd, accumulate=2, model=TinyNet(dropout=0.0)),
    }.items():
        source = e.data.open("train")
        batches = [source.take(np.arange(8 * i, 8 * i + 8) % 50) for i in range(10)]
        one = transforms.compile(make_program(e, steps=12))
        solo, solo_metrics = train(one, one.init(jax.random.key(0)), batches)
        for devices in (2, 4) if name == "plain" else (4,):
            many = transforms.shard(
                make_program(e, steps=12), arranged(Layout(), devices=jax.devices()[:devices])
            )
            got, metrics = train(many, many.init(jax.random.key(0)), batches)
            out[f"{name}, {devices} devices"] = max(
                difference(solo.params, got.params), difference(solo.model_state, got.model_state)
            )
            out[f"{name}, {devices} devices, loss"] = abs(
                float(solo_metrics["loss"] - metrics["loss"])
            )

    four = transforms.shard(make_program(e, steps=12), arranged(Layout()))
    try:
        four.train_step(None, source.take(np.arange(6)))
    except ConfigError as error:
        out["uneven"] = str(error)
    with tempfile.TemporaryDirectory() as folder:
        for name, call in {
            "check": lambda: pre_flight(tiny(batch_size=6)),
            "train": lambda: jaxcnn.train(tiny(batch_size=6), f"{folder}/run", quiet=True),
            "sweep": lambda: jaxcnn.train(
                tiny(), f"{folder}/sweep", points=[{"batch_size": 8}, {"batch_size": 6}], quiet=True
            ),
        }.items():
            try:
                call()
            except ConfigError as error:
                out[f"uneven, {name}"] = str(error)
        out["uneven, left"] = os.listdir(folder)

    e = tiny(optimizer=sgd)
    source = e.data.open("train")
    seeds, rates = (0, 1, 2, 3), (0.05, 0.1, 0.2, 0.01)
    orders = [
        [source.take(np.random.default_rng(100 * s + i).integers(0, 50, 8)) for i in range(10)]
        for s in seeds
    ]
    stacked = [
        jax.tree.map(lambda *x: jnp.stack(x), *[orders[s][i] for s in seeds]) for i in range(10)
    ]
    keys, numbers = (
        jnp.stack([jax.random.key(s) for s in seeds]),
        {"optimizer.learning_rate": jnp.array(rates)},
    )
    solos = []
    for i, s in enumerate(seeds):
        solo_e = dataclasses.replace(
            e, optimizer=partial(optax.sgd, learning_rate=rates[i], momentum=0.9)
        )
        one = transforms.compile(make_program(solo_e, steps=12))
        solos.append(train(one, one.init(jax.random.key(s)), orders[i])[0])
    mesh = jax.make_mesh((2, 2), ("replica", "data"), axis_types=(AxisType.Auto,) * 2)
    scored = transforms.scored(make_program(e, steps=12), e)
    replicas = transforms.replicate(scored)
    for name, program in {
        "replicas": transforms.compile(replicas),
        "replicas x data": transforms.shard(
            replicas,
            mesh,
            state=PartitionSpec("replica"),
            batch=PartitionSpec("replica", "data"),
            eval_batch=PartitionSpec("data"),
        ),
    }.items():
        many, _ = train(program, program.init(keys, numbers), stacked)
        sums, _ = program.output_step(program.init(keys, numbers), source.take(np.arange(20)))
        out[f"{name}, counts"] = jax.device_get(sums["count"]).tolist()
        for i, solo in enumerate(solos):
            out[f"{name}, replica {i}"] = difference(
                solo.params, jax.tree.map(lambda x, i=i: x[i], many.params)
            )
    out |= on_devices_of_their_own(e, orders, seeds, rates)
    out |= whole_sweep(e)
    out |= on_paper() | {"rungs": rungs(), "changing": changing()}
    print(json.dumps(out))


def on_devices_of_their_own(e, orders, seeds, rates):
    """The way "devices": a bundle on each device, each from a state that came from another one."""
    out, used = {}, set()
    base = transforms.scored(make_program(e, steps=12), e)
    one = transforms.compile(base)
    counts = []
    init = jax.jit(base.init)
    for i, bundle in enumerate(Way.from_text("devices", 4).bundles(base)):
        start = init(jax.random.key(seeds[i]), {RATE: jnp.float32(rates[i])})
        state = bundle.join([start])
        for batch in orders[i]:
            state, _ = bundle.single.train_step(state, jax.device_put(batch, bundle.device))
        used.add(next(iter(state.params["Conv_0"]["kernel"].devices())))
        rows = e.data.open("train").take(np.arange(20))
        counts.append(
            int(bundle.single.output_step(state, jax.device_put(rows, bundle.device))[0]["count"])
        )
        start = init(jax.random.key(seeds[i]), {RATE: jnp.float32(rates[i])})
        solo, _ = train(one, start, orders[i])
        out[f"devices, replica {i}"] = difference(
            solo.params, jax.device_put(state.params, jax.devices()[0])
        )
    return out | {"devices used": len(used), "devices, counts": counts}


def whole_sweep(e):
    """Largest difference on four devices between solo runs and a sweep by vmap or "devices"."""
    e = dataclasses.replace(e, steps=4)
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        points = [{"seed": seed} for seed in range(2)]
        solos = [
            jaxcnn.train(dataclasses.replace(e, seed=s), f"{folder}/{s}", quiet=True)
            for s in range(2)
        ]
        for way in ("vmap", "devices"):
            run = jaxcnn.train(e, f"{folder}/{way}", points=points, way=way, quiet=True)
            pairs = zip(solos, run.replicas, strict=True)
            worst = [abs(a.summary["eval"]["loss"] - b.summary["eval"]["loss"]) for a, b in pairs]
            out[f"sweep by {way}, loss"] = max(worst)
    return out


def rungs():
    """[(verdict, loss at the last evaluation)] of each of ten replicas of which a rung leaves five,
    two or one on a device, and of the same trained one by one.
    """
    e, out = tiny(optimizer=partial(optax.sgd, learning_rate=0.05)), {}
    points = [{"seed": i} for i in range(10)]
    with tempfile.TemporaryDirectory() as folder:
        for way in ("devices", "loop"):
            options = {"points": points, "way": way, "halving": 2, "quiet": True}
            run = jaxcnn.train(e, f"{folder}/{way}", **options)
            out[way] = [
                (one.summary["verdict"], one.summary["eval"]["loss"]) for one in run.replicas
            ]
    return out


def changing():
    """What is said of a source that hands out images of two dtypes in turns."""

    class Changing:
        streaming, arrays = True, None

        def __init__(self, source):
            self.source, self.calls = source, 0

        def __len__(self):
            return len(self.source)

        def take(self, indices):
            self.calls += 1
            batch = self.source.take(indices)
            image = batch["image"]
            return {**batch, "image": np.float32(image) / 255 if self.calls % 2 else image}

    @dataclasses.dataclass(frozen=True, eq=False)
    class ChangingArrays(Arrays):
        def open(self, split):
            return Changing(super().open(split)) if split == "train" else super().open(split)

    data = ChangingArrays(train=arrays(60), eval=arrays(20, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        try:
            return jaxcnn.train(tiny(data=data), f"{folder}/run", quiet=True).summary["verdict"]
        except ConfigError as error:
            return str(error)


def on_paper():
    """What `check --devices 4` says of a step, and the step that is compiled for four devices."""
    e = tiny(model=TinyNet(width=64), batch_size=64)
    whole, split = (
        NamedSharding(arranged(Layout()), PartitionSpec(*axes)) for axes in ((), ("data",))
    )
    program, batch = make_program(e, steps=12), e.data.open("train").take(np.arange(64) % 50)
    step = jax.jit(
        program.train_step,
        in_shardings=(whole, split),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )
    state = jax.eval_shape(program.init, jax.random.key(0))
    compiled = step.lower(state, batch).compile()
    sums = re.findall(r"= (.*?) all-reduce(?:-start)?\(", compiled.as_text())
    shapes = [dims for found in sums for dims in re.findall(r"f32\[([\d,]*)\]", found)]
    summed = sum(4 * math.prod(int(n) for n in dims.split(",") if n) for dims in shapes)
    facts = {**pre_flight(e), "step_flops": None, **measure_step(e, steps=12)}
    return {
        "paper": device_share(facts, 4, batch_size=64, link=50.0),
        "param_bytes": facts["param_bytes"],
        "compiled bytes": call_bytes(compiled, arguments=True),
        "summed bytes": summed,
    }


if __name__ == "__main__":
    main()
