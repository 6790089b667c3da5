"""The peaks of a device, measured, and where a compiled step lies under them: operations, memory,
the roofline model.

Source: Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for
Multicore Architectures" (2009).
"""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.bench.load import Block, watched
from jaxcnn.core.memory import call_bytes, free_bytes


def measure_peak(
    dtype: str, *, size: int | None = None, copy_bytes: int | None = None, repeats: int = 5
) -> dict[str, Any]:
    """{"flops_per_second" of a matrix product [size, size] of that dtype, "bytes_per_second" read
    and written by a copy}: the best of `repeats`; "disturbed" if others used the processors
    (jaxcnn.bench.load) in the best of either. A float32 product has the backend's default
    precision, as convolutions have (TF32 on recent NVIDIA GPUs).
    """
    on_cpu = jax.default_backend() == "cpu"
    size = size or (1536 if on_cpu else 8192)
    copy_bytes = copy_bytes or (1 << 27 if on_cpu else 1 << 30)
    matrix = jnp.full((size, size), 1 / size, dtype)
    array = jnp.zeros((copy_bytes // 4,), jnp.float32)
    product = _best(jax.jit(jnp.matmul), matrix, matrix, repeats=repeats)
    copy = _best(jax.jit(lambda x: x + 1.0), array, repeats=repeats)
    return {
        "flops_per_second": 2 * size**3 / product.seconds,
        "bytes_per_second": 2 * array.nbytes / copy.seconds,
        "disturbed": product.disturbed or copy.disturbed,
    }


def _best(function: Any, *arguments: Any, repeats: int, calls: int = 2) -> Block:
    """The least seconds a call over `repeats` blocks of `calls`, after one to warm up."""

    def block() -> float:
        start = time.perf_counter()
        jax.block_until_ready([function(*arguments) for _ in range(calls)])
        return time.perf_counter() - start

    block()
    best = min((watched(block) for _ in range(repeats)), key=lambda block: block.seconds)
    return best._replace(seconds=best.seconds / calls)


def flop_count(macs: int, batch_size: int, kind: str) -> int:
    """Floating-point operations of a step: two for each multiply-accumulate, and in training three
    passes (forward, and the gradients with respect to inputs and to weights)."""
    return (3 if kind == "train" else 1) * 2 * macs * batch_size


def position(
    flops: int, seconds: float, bytes_accessed: float | None, peak: dict[str, Any]
) -> dict[str, Any]:
    """Where a step lies under the roof min(peak FLOP/s, intensity x peak bytes/s).

    `bytes_accessed` is the compiler's estimate, or None; then only the share of the peak is known.
    """
    achieved = flops / seconds
    result: dict[str, Any] = {
        "flops": flops,
        "flops_per_second": achieved,
        "share_of_peak": achieved / peak["flops_per_second"],
    }
    if not bytes_accessed:
        return {
            **result,
            "bytes_accessed": None,
            "arithmetic_intensity": None,
            "bound": None,
            "share_of_roof": None,
        }
    intensity = flops / bytes_accessed
    by_memory = intensity * peak["bytes_per_second"]
    roof = min(peak["flops_per_second"], by_memory)
    return {
        **result,
        "bytes_accessed": bytes_accessed,
        "arithmetic_intensity": intensity,
        "bound": "memory" if by_memory < peak["flops_per_second"] else "compute",
        "share_of_roof": achieved / roof if roof else None,
    }


def bytes_accessed(compiled: Any) -> float | None:
    """The compiler's estimate of the bytes that a call reads and writes, or None where
    it has none.
    """
    try:
        analysis = compiled.cost_analysis()
    except (NotImplementedError, RuntimeError):
        return None
    analysis = analysis[0] if isinstance(analysis, list) and analysis else analysis
    value = analysis.get("bytes accessed") if isinstance(analysis, dict) else None
    return float(value) if value and value > 0 else None


def memory(steps: dict[str, Any]) -> dict[str, Any]:
    """Peak memory: of the device since the process began (None on CPU), of each compiled step, and
    of this process, in bytes.
    """
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "device_peak_bytes": stats.get("peak_bytes_in_use"),
        "compiled_bytes": {kind: call_bytes(step, arguments=True) for kind, step in steps.items()},
        "process_peak_bytes": _process_peak_bytes(),
    }


def _process_peak_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes() -> int | None:
    """Memory that a program may take: the device's limit, or on CPU what the host has free; None
    where neither is known.
    """
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return free_bytes()[0]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    return isinstance(error, MemoryError) or any(
        text in str(error) for text in ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")
    )
