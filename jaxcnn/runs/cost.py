"""What a training step costs: operations by formula, memory by the compiler, time by the clock."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.core import memory, transforms
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import model_inputs, prepare
from jaxcnn.core.program import make_program
from jaxcnn.inspect.summary import summarize_layers, total_macs

TIMED = 5  # steps, of which the median counts
SECONDS = 5.0  # no further step is timed after so many


def step_flops(e: Experiment) -> int | None:
    """Floating point operations of an update, by formula: two for each multiply-accumulate of the
    forward pass (jaxcnn.inspect.summary), three times, since the backward pass takes twice the
    forward's. Augmentation, loss, optimizer and what frozen layers save are left out. None where
    the objective or the program is the experiment's own: how often they run the model is unknown.
    """
    if e.program is not None or e.objective is not None:
        return None
    rows, spec = e.batch_size // e.accumulate, e.data.spec()
    batch = {n: jax.ShapeDtypeStruct((rows, *s.shape), s.dtype) for n, s in spec.items()}
    # augmented: the model is trained on other sizes, where an augmentation makes such
    inputs = jax.eval_shape(lambda b: model_inputs(e, prepare(e, b, key=jax.random.key(0))), batch)
    return 3 * 2 * total_macs(summarize_layers(e.model, inputs, train=True)) * e.batch_size


def measure_step(e: Experiment, *, steps: int) -> dict[str, Any]:
    """Compile the step of a run of `steps` updates, and make a few on blank examples.

    {"step_bytes": arguments (state and batch), results that do not take their place, and
    temporaries, as the compiler says, None where it does not; "step_seconds": the median;
    "steps_timed"; "compile_seconds"}. Errors: ResourceError where the host's memory does not
    suffice.
    """
    program = make_program(e, steps=steps)
    state = transforms.compile(program).init(jax.random.key(e.seed))
    spec = e.data.spec()
    batch = {n: jnp.zeros((e.batch_size, *s.shape), s.dtype) for n, s in spec.items()}
    start = time.perf_counter()
    jitted = jax.jit(program.train_step, donate_argnums=0, compiler_options=transforms.stepping())
    step = jitted.lower(state, batch).compile()
    compiled = time.perf_counter() - start
    memory.check(memory.call_bytes(step) or 0, "the training step", "choose a smaller batch_size")
    taken: list[float] = []
    state, _ = jax.block_until_ready(step(state, batch))  # the first one pays for what is lazy
    while len(taken) < TIMED and sum(taken) < SECONDS:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        taken.append(time.perf_counter() - start)
    return {
        "step_bytes": memory.call_bytes(step, arguments=True),
        "step_seconds": float(np.median(taken)),
        "steps_timed": len(taken),
        "compile_seconds": compiled,
    }
