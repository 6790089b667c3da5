"""What else used the processors while a block of steps was timed: other programs, and a hypervisor
that gave them to somebody else. Linux alone counts both; elsewhere they are unknown.

Source: proc(5) and proc_stat(5) of the Linux man-pages.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# A block is disturbed by more than this share of the processors' time, and more than so many
# seconds of it: the kernel counts in steps of 10 ms, each processor on its own.
MOST_SHARE, MOST_SECONDS = 0.05, 0.05
REPEATS = 3  # of a disturbed block


class Usage(NamedTuple):
    """Seconds since some moment: `wall`, and of the processors that this process may use, all
    together, `busy` (not idle), `stolen` by the hypervisor, and `own`, those of the process that is
    timed.
    """

    wall: float
    busy: float
    stolen: float
    own: float
    processors: int


class Block(NamedTuple):
    """A timed block: its seconds; the share of the processors' time that others used, and that a
    hypervisor stole, in [0, 1], or None where the system does not say; whether that is too much;
    how often it was timed until it was not.
    """

    seconds: float
    others: float | None = None
    stolen: float | None = None
    disturbed: bool = False
    attempts: int = 1


def watched(
    block: Callable[[], float],
    *,
    pid: int | None = None,
    read: Callable[..., Usage | None] | None = None,
) -> Block:
    """The block, timed again while it is disturbed, at most REPEATS times; the least disturbed.

    pid: of the process that does the work (default: this one); what any other does, ours included,
    counts as disturbance.
    """
    read = read or usage
    found: list[Block] = []
    while not found or (found[-1].disturbed and len(found) <= REPEATS):
        before = read(pid)
        seconds = block()
        found.append(judged(seconds, before, read(pid)))
    best = min(found, key=lambda block: (block.others or 0.0) + (block.stolen or 0.0))
    return best._replace(attempts=len(found))


def judged(seconds: float, before: Usage | None, after: Usage | None) -> Block:
    """A block between two readings."""
    if before is None or after is None:
        return Block(seconds)
    wall, busy, stolen, own = (b - a for a, b in zip(before[:4], after[:4], strict=True))
    room = max(wall * after.processors, 1e-9)
    others = max(0.0, busy - own)  # the two are counted apart, so it may come out below 0
    disturbed = others + stolen > max(MOST_SHARE * room, MOST_SECONDS)
    return Block(seconds, min(1.0, others / room), min(1.0, stolen / room), disturbed)


def usage(pid: int | None) -> Usage | None:
    """A reading for a process (None: this one); None where the system does not say."""
    try:
        mine = os.sched_getaffinity(0)
        lines = Path("/proc/stat").read_text().splitlines()
        tick = 1 / os.sysconf("SC_CLK_TCK")
        rows = [line.split() for line in lines if line.startswith("cpu") and line[3] != " "]
        counts = [list(map(int, row[1:9])) for row in rows if int(row[0][3:]) in mine]
        own = time.process_time() if pid in (None, os.getpid()) else _seconds_of(pid, tick)
    except (AttributeError, OSError, ValueError, IndexError):
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are within user
    busy = sum(sum(count[:3]) + count[5] + count[6] for count in counts) * tick
    stolen = sum(count[7] for count in counts) * tick
    return Usage(time.perf_counter(), busy, stolen, own, len(counts))


def _seconds_of(pid: int, tick: float) -> float:
    """User and system seconds of all threads of a process, those that ended included."""
    # the name, in brackets, may hold spaces
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * tick
