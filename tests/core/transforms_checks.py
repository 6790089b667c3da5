"""Run by test_parallel.py in a process of its own with four simulated devices; prints differences
as JSON.
"""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, PartitionSpec

from jaxcnn.core import transforms
from jaxcnn.core.program import make_program
from jaxcnn.errors import ConfigError
from jaxcnn.runs.ways import Way
from tests.tiny import TinyNet, tiny


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


def train_chunks(program, states, batches):
    for batch in batches:
        states, metrics = program.train_step(states, batch)
    return states, metrics


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
        for devices in (2, 4):
            many = transforms.shard(
                make_program(e, steps=12), transforms.data_mesh(jax.devices()[:devices])
            )
            got, metrics = train(many, many.init(jax.random.key(0)), batches)
            out[f"{name}, {devices} devices"] = max(
                difference(solo.params, got.params), difference(solo.model_state, got.model_state)
            )
            out[f"{name}, {devices} devices, loss"] = abs(
                float(solo_metrics["loss"] - metrics["loss"])
            )

    four = transforms.shard(make_program(e, steps=12), transforms.data_mesh())
    try:
        four.train_step(None, source.take(np.arange(6)))
    except ConfigError as error:
        out["uneven"] = str(error)

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
    mesh = jax.make_mesh((2, 2), ("replica", "data"), axis_types=(AxisType.Auto,) * 2)
    replicas = transforms.replicate(make_program(e, steps=12))
    for name, program in {
        "replicas": transforms.compile(replicas),
        "replicas x data": transforms.shard(
            replicas,
            mesh,
            state=PartitionSpec("replica"),
            batch=PartitionSpec("replica", "data"),
            eval_batch=PartitionSpec("data"),
        ),
        "devices": Way.from_text("devices", 4).apply(make_program(e, steps=12)),
    }.items():
        if name == "devices":
            # as a restored state comes: all on one device
            start = jax.device_put(program.init(keys, numbers), jax.devices()[0])
            state, _ = train_chunks(program, start, stacked)
            many = jax.tree.map(
                lambda *x: jnp.stack(x),
                *[jax.device_put(s.replace(key=None), jax.devices()[0]) for s in state],
            )
            out["devices used"] = len(
                {next(iter(s.params["Conv_0"]["kernel"].devices())) for s in state}
            )
        else:
            many, _ = train(program, program.init(keys, numbers), stacked)
        for i, s in enumerate(seeds):
            solo_e = dataclasses.replace(
                e, optimizer=partial(optax.sgd, learning_rate=rates[i], momentum=0.9)
            )
            one = transforms.compile(make_program(solo_e, steps=12))
            solo, _ = train(one, one.init(jax.random.key(s)), orders[i])
            sums, _ = program.eval_step(program.init(keys, numbers), source.take(np.arange(20)))
            out[f"{name}, counts"] = jax.device_get(sums["count"]).tolist()
            out[f"{name}, replica {i}"] = difference(
                solo.params, jax.tree.map(lambda x, i=i: x[i], many.params)
            )
    print(json.dumps(out))


if __name__ == "__main__":
    main()
