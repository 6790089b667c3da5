"""The process and the terminal it was started from: standard streams, Ctrl-C before training.

Imports nothing heavy: the command line sets this up before anything else.
"""

import contextlib
import io
import os
import signal
import sys
from types import FrameType
from typing import TextIO

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


def stop_at_interrupts() -> None:
    """Have Ctrl-C end the process at once, with exit code 130.

    KeyboardInterrupt would be raised in the middle of what a library written in C does while it is
    imported or compiles: it then becomes another error, is lost, hangs or crashes the process, all
    of which was seen. Training, which has a state to save, listens for itself
    (`jaxcnn.runs.rundir.signals`); files are written atomically.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(Exception):  # it may be in use by what was interrupted
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            os.write(2, b"interrupted\n")
        os._exit(130)

    with contextlib.suppress(ValueError):  # a thread other than the main one
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background job
            signal.signal(signal.SIGINT, handle)


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
