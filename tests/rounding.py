"""Programs compiled so that XLA computes a number anew for each of its uses, rounded otherwise in
some of them: what must hold however a program is compiled is looked at so, too.
"""

import functools
import os

import jax
import jax.numpy as jnp
import pytest

OPTIONS = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_backend_optimization_level": 0,
}


@functools.cache
def options_are_known() -> bool:
    """Whether this XLA knows all of OPTIONS."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=OPTIONS)(0.0)
    except RuntimeError:  # "No such compile option"
        return False
    return True


def computed_anew(function, *arguments):
    """`function(*arguments)`, compiled so; the test is skipped where XLA knows no such options."""
    if not options_are_known():
        pytest.skip(f"this XLA does not know all of {', '.join(OPTIONS)}")
    return jax.jit(function, compiler_options=OPTIONS)(*arguments)


def quick_environment(*flags: str) -> dict[str, str]:
    """The environment in which a process compiles so, and sooner; `flags`: more of XLA's."""
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    known = options if options_are_known() else []
    return os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": " ".join([*flags, *known]).lower(),
    }


def normalized(x, scale, offset):
    """Batch normalization of x [B, H, W, C], whose products and sums may be rounded once or twice;
    scale, offset [C]."""
    mean = x.mean((0, 1, 2), keepdims=True)
    variance = jnp.square(x - mean).mean((0, 1, 2), keepdims=True)
    scale, offset = (jnp.reshape(number, (1, 1, 1, -1)) for number in (scale, offset))
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + offset
