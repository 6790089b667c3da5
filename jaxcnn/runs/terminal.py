"""The process and the terminal it was started from: standard streams, Ctrl-C before training.

Imports nothing heavy: the command line sets this up before anything else.
"""

import contextlib
import os
import signal
import sys
from types import FrameType

_heard: list[int] = []  # the Ctrl-Cs that came since `hear_interrupts`


def prepare_streams() -> None:
    """Make output possible in every terminal: what its encoding lacks is written as \\xfc instead
    of ending the program, and a closed standard stream becomes the null device, so that no file
    that is opened later gets its number and with it what libraries print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (it stays)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def hear_interrupts() -> None:
    """Have Ctrl-C raise KeyboardInterrupt, as in Python, and remember it.

    Libraries written in C turn one that comes while they are imported into other errors, or lose
    it ("Exception ignored in …"); `interrupted` knows of it all the same.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        _heard.append(number)
        raise KeyboardInterrupt

    _heard.clear()
    with contextlib.suppress(ValueError):  # a thread other than the main one
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background job
            signal.signal(signal.SIGINT, handle)


def interrupted() -> bool:
    """Whether Ctrl-C came since `hear_interrupts`, lost or not."""
    return bool(_heard)


def discard_output() -> None:
    """Let what is still to be printed go nowhere: nobody can take it."""
    sink = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
