"""The process and the terminal it was started from: standard streams, signals before training.

Imports nothing heavy: the command line sets this up before anything else.
"""

import contextlib
import io
import os
import signal
import sys
from types import FrameType
from typing import TextIO

# that ask to stop, where a system has them; the last two are what queues send before a time limit
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")

# control characters, but for tabs and ends of lines: a name with them could move the cursor, rename
# the window, or hide what was printed before
ESCAPED = {n: f"\\x{n:02x}" for n in (*range(9), *range(11, 32), *range(127, 160))}


class Screen(io.TextIOWrapper):
    """A terminal's stream, to which control characters are written as \\x1b."""

    def write(self, text: str, /) -> int:
        return super().write(text.translate(ESCAPED))


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
            if stream.isatty():  # in a file names are exact
                os.environ.setdefault("PYTHON_COLORS", "0")  # of argparse and tracebacks
                screen = Screen(
                    stream.buffer, stream.encoding, "backslashreplace", line_buffering=True
                )
                setattr(sys, name, screen)


def stop_at_signals() -> None:
    """Have Ctrl-C and the other signals that ask a program to stop end the process at once, with
    one line and exit code 128 + signal (130 of Ctrl-C, 143 of SIGTERM).

    KeyboardInterrupt would be raised in the middle of what a library written in C does while it is
    imported or compiles: it then becomes another error, is lost, hangs or crashes the process, all
    of which was seen. Training, which has a state to save, listens for itself
    (`jaxcnn.runs.rundir.signals`); files are written atomically. What is ignored stays ignored: a
    shell's background job, nohup.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(Exception):  # it may be in use by what was interrupted
            sys.stdout.flush()
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        with contextlib.suppress(OSError):
            os.write(2, f"interrupted{by}\n".encode())
        os._exit(128 + number)

    with contextlib.suppress(ValueError):  # a thread other than the main one
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handle)


def ignore_signals() -> None:
    """For the moments in which Python ends: it takes its handlers away, and a signal would then end
    by itself, without a word, a process whose work is done and whose exit code says so.
    """
    with contextlib.suppress(ValueError):  # a thread other than the main one
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            signal.signal(number, signal.SIG_IGN)


def end_output() -> None:
    """Write what is still held back, or let it go nowhere where nobody can take it, so that Python
    does not fail of it when it ends. Errors: OSError, of stdout.
    """
    with contextlib.suppress(OSError):
        _flush(sys.stderr)
    _flush(sys.stdout)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        sink = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError, ValueError):
            os.dup2(sink, stream.fileno())
        os.close(sink)
        raise
