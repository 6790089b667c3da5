"""Run by test_meshes.py in a process of its own with eight simulated devices; prints what it found
as JSON, and leaves runs in the folder that it is given.
"""

import json
import re
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax

import jaxcnn
from jaxcnn.core import meshes, transforms
from jaxcnn.core.meshes import Layout
from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DivergedError, Preempted
from jaxcnn.runs.train import go_on
from tests.tiny import Lines, TinyNet, arrays, stop_at, tiny

SGD = partial(optax.sgd, learning_rate=0.05, momentum=0.9)
MESHES = ("data=8", "data=4,fsdp=2", "fsdp=-1")


def difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.float64(x) - np.float64(y)).max()) for x, y in pairs)


def against_one_device():
    """{mesh: largest difference in the state and the loss after 10 steps; of the outputs}"""
    e = tiny(optimizer=SGD)
    source, program = e.data.open("train"), make_program(e, steps=12)
    batches = [source.take(np.arange(8 * i, 8 * i + 8) % 50) for i in range(10)]
    scored = transforms.scored(program, e)

    def end(compiled):
        state = compiled.init(jax.random.key(0))
        for batch in batches:
            state, numbers = compiled.train_step(state, batch)
        sums, _ = compiled.output_step(state, source.take(np.arange(16)))
        means = jax.tree.map(lambda x: x / 16, sums)
        return state.replace(key=None), numbers, means

    one = end(transforms.compile(scored))
    spread = {mesh: transforms.on_devices(scored, layout=Layout(mesh)) for mesh in MESHES}
    return {mesh: difference(one, end(program)) for mesh, program in spread.items()}


def bytes_held():
    """Of a wider network's whole state: on each device, and as `check` says."""
    e, layout = tiny(model=TinyNet(width=64)), Layout("fsdp=8")
    program = make_program(e, steps=1)
    state = transforms.on_devices(program, layout=layout).init(jax.random.key(0))
    leaves = jax.tree.leaves(state.replace(key=None))
    held = [
        sum(s.data.nbytes for x in leaves for s in x.addressable_shards if s.device == device)
        for device in jax.devices()
    ]
    said = meshes.bytes_per_device(jax.eval_shape(lambda: state), layout, 8)
    return {"whole": sum(x.nbytes for x in leaves), "held": held, "said": said}


def collectives():
    """{operation: how often} in the compiled step of a divided state."""
    e = tiny(optimizer=SGD)
    program, mesh = make_program(e, steps=1), meshes.arranged(Layout("data=2,fsdp=4"))
    state = jax.eval_shape(program.init, jax.random.key(0))
    rows = jax.sharding.NamedSharding(mesh, meshes.ROWS)
    laid = meshes.shardings(mesh, meshes.specs(state, mesh, ()))

    def step(state, batch):
        with meshes.dividing(mesh):
            return program.train_step(state, batch)

    jitted = jax.jit(step, in_shardings=(laid, rows), out_shardings=(laid, None))
    text = jitted.lower(state, e.data.open("train").take(np.arange(8))).compile().as_text()
    names = ("all-gather", "all-reduce", "all-to-all", "collective-permute")
    return {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in names}


def runs(folder):
    """Whole runs, for the process that has one device to go on with."""
    out, e = {}, tiny(mesh="data=2,fsdp=-1", model=TinyNet(dropout=0.0))
    run = jaxcnn.train(e, folder / "eight", quiet=True)
    out["eight"] = run.summary["eval"]
    try:
        jaxcnn.train(e, folder / "stopped", observe=[stop_at(7)], quiet=True)
    except Preempted as error:
        out["stopped"] = str(error)
    console = Lines()
    go_on(
        tiny(mesh="fsdp=-1", model=TinyNet(dropout=0.0)), folder / "from one", {}, console=console
    )
    out["from one"] = [line for line in console.lines if "not bit-exact" in line]
    # a test split is evaluated without the mesh; at a rung replicas leave their program
    data = Arrays(train=arrays(50), eval=arrays(21, seed=1), test=arrays(21, seed=2))
    tested = tiny(mesh="data=2,fsdp=-1", model=TinyNet(dropout=0.0), data=data)
    for way in ("vmap", "unrolled"):
        points = [{"seed": 0}, {"seed": 1}]
        sweep = jaxcnn.train(tested, folder / way, points=points, way=way, halving=2, quiet=True)
        out[way] = [replica.summary.get("test", {}).get("loss") for replica in sweep.replicas]
    for name, fields in {
        "count": {"mesh": "data=3,fsdp=2"},
        "rule": {"mesh": "fsdp=8", "layout": (("kernle", -1),)},
        "axis": {"mesh": "fsdp=8", "layout": (("params/Conv_0/kernel", -2),)},
    }.items():
        try:
            jaxcnn.train(tiny(**fields), folder / name, quiet=True)
        except ConfigError as error:
            out[name] = str(error), (folder / name).exists()
    try:
        jaxcnn.train(tiny(mesh="fsdp=8", clip_norm=None, optimizer=WILD), folder / "d", quiet=True)
    except DivergedError as error:
        out["diverged"] = str(error)
    return out


WILD = partial(optax.sgd, learning_rate=1e30)

if __name__ == "__main__":
    found = {"differences": against_one_device(), "bytes": bytes_held()}
    found |= {"collectives": collectives(), "runs": runs(Path(sys.argv[1]))}
    print(json.dumps(found))
