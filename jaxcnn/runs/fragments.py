"""The free pieces of memory between what a compiler has left in use, set aside, so that the steps
that follow need not search them.

All memory is taken from one arena, which keeps it (`jaxcnn.runs.environment.keep_memory`). LLVM
leaves tens of thousands of free pieces there, of all sizes, among what stays in use; an allocation
of a step walks through lists of them, while other threads wait for the same lock. A step of
DenseNet-121 took 1.7 times as long in the process that had compiled it as in one that read it from
the cache (docs/performance.md). Pieces of a page or more are therefore allocated and never used:
their pages go back to the kernel before, so that they cost addresses, not memory. What the program
needs then comes from one undivided piece at the end.
"""

import ctypes
import threading
import time

LONG = 1.0  # seconds of compilation after which the pieces are set aside
WORTH = 20  # and how many times what the last time took: after the first, a twentieth at most
PAGE = 4096  # bytes; smaller pieces have lists of their own size, which need no search
LARGEST = 2**26  # bytes that are asked for at once
COARSE = 1.2  # the ratio of the sizes that are asked for one after another


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    )


def _glibc() -> ctypes.CDLL | None:
    """glibc with the types of what is called here; None where it is older than 2.33."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype, libc.mallinfo2.argtypes = _Mallinfo, ()
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, (ctypes.c_ssize_t,)
    return libc


_held: list[int] = []
_lock = threading.Lock()


def set_aside() -> int:
    """Set aside the free pieces of glibc's main arena, those of earlier calls anew; how many bytes.

    0 without glibc's `mallinfo2`, and where the process's addresses are limited. For a process
    whose only arena that is.
    """
    import resource  # of POSIX alone

    libc = _glibc()
    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    limited = any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits)
    if libc is None or limited:
        return 0
    with _lock:
        while _held:
            libc.free(_held.pop())
        libc.malloc_trim(0)
        memory = libc.mallinfo2()
        # the last, undivided piece ends where the heap does, and is what is to be left
        end, left = libc.sbrk(0) - memory.keepcost, memory.fordblks - memory.keepcost
        taken, size = 0, LARGEST
        while size >= PAGE:
            piece = libc.malloc(size) if size <= left - taken else None
            if piece is not None and piece < end:
                _held.append(piece)
                taken += size
                continue
            if piece is not None:
                libc.free(piece)
            size = int(size / COARSE)
        return taken


def set_aside_after_compiling() -> None:
    """From now on, set the pieces aside whenever XLA has compiled for a second, or for 20 times
    what the last time took.
    """
    import jax.monitoring  # only here: what JAX reads at its start is set before

    if not _listening:
        _listening.append(True)
        jax.monitoring.register_event_duration_secs_listener(_listen)


def settle() -> None:
    """Set the pieces aside now, before something is timed, if this process does so at all."""
    if _listening:
        set_aside()


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event != "/jax/core/compile/backend_compile_duration":
        return
    _compiled["seconds"] += duration_secs
    if _compiled["seconds"] >= _compiled["due"]:
        start = time.perf_counter()
        set_aside()
        _compiled.update(seconds=0.0, due=max(LONG, WORTH * (time.perf_counter() - start)))


_listening: list[bool] = []
_compiled = {"seconds": 0.0, "due": LONG}  # since the last time, and at which the next one is
