"""A trace of some steps of a run: what the host and the device did, and when (jax.profiler).

It lies in RUN/profile/plugins/profile/<time>/: *.xplane.pb for xprof and TensorBoard
(`tensorboard --logdir RUN`, with xprof installed), *.trace.json.gz for Perfetto and Chrome's
about:tracing.
"""

import gzip
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import jax

from jaxcnn.errors import ConfigError

FOLDER = "profile"  # within the run's
EVENTS = 1_000_000  # in a file for Perfetto, at most
MARK = b'"ph":"X"'  # begins one
BLOCK = 1 << 24  # bytes that are read at a time

Say = Callable[[str], None]


class Profile:
    """A trace in `folder` of the steps `first` to `last` of a run, both of them in it, counted from
    1 as metrics.jsonl does. The first step compiles, which takes most of a trace that has it.

    Traced are whole dispatches (`steps_per_dispatch`): those that have any of the steps. Each is
    marked "train" (jax.profiler.StepTraceAnnotation) with its first step. What lies between them
    (evaluations, saves) is in the trace, too. A trace that cannot be made is said, and training
    goes on; JAX then begins no other one in this process.

    Errors: ConfigError where `first` < 1 or `last` < `first`.
    """

    def __init__(self, first: int, last: int, folder: Path):
        if not 1 <= first <= last:
            raise ConfigError(
                f"profile {first}..{last}: goes from a step (the first one is 1) to the same or a "
                "later one, e.g. 101..110"
            )
        self.first, self.last, self._folder = first, last, folder
        self.begun: int | None = None  # the first step traced
        self.done = False
        self._at = 0  # the last step traced

    @classmethod
    def of(cls, steps: tuple[int, int] | None, run: Path) -> Self | None:
        """That of (first, last) in the folder of a run; None where there is to be none."""
        return None if steps is None else cls(*steps, run / FOLDER)

    def check(self, steps: int, *, at: int = 0) -> None:
        """ConfigError where a run that is at step `at` of `steps` does not come by all of it."""
        if not self.done and not at < self.first <= self.last <= steps:
            raise ConfigError(
                f"profile {self.first}..{self.last}: this run makes the steps {at + 1} to {steps}; "
                "choose among these"
            )

    @contextmanager
    def dispatch(
        self, start: int, end: int, *, settle: Callable[[], object], say: Say
    ) -> Generator[None]:
        """Around the steps `start` to `end`, which one dispatch makes. `settle` waits for all that
        was dispatched.
        """
        if self.done or end < self.first:
            yield
            return
        if self.begun is None:
            settle()  # earlier steps are not in the trace
            self.begun = start
            try:
                start_trace(self._folder)
            except Exception as error:
                self.done = True
                say(f"warning: no profile: {type(error).__name__}: {error}")
                yield
                return
        with jax.profiler.StepTraceAnnotation("train", step_num=start):
            yield
        self._at = end
        if end >= self.last:
            settle()
            self.close(say)

    def close(self, say: Say) -> None:
        """Write the trace, of the steps so far where the run ends before the last one."""
        if self.done:
            return
        self.done = True
        if self.begun is None:
            return
        try:
            jax.profiler.stop_trace()
        except Exception as error:
            say(f"warning: no profile: {type(error).__name__}: {error}")
            return
        asked = (self.first, self.last) == (self.begun, self._at)
        more = "" if asked else f" (asked for: {self.first} to {self.last}; dispatches are whole)"
        if self._at < self.last:
            more = f" (asked for: {self.first} to {self.last}; training ended before)"
        say(f"profile of steps {self.begun} to {self._at}: {self._folder}{more}")
        for warning in cut_short(self._folder):
            say(warning)


def start_trace(folder: Path) -> None:
    """Begin a trace into `folder`, without the frames of Python, which slow down what is traced."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.profiler.start_trace(folder, profiler_options=options)


@contextmanager
def tracing(folder: Path) -> Generator[None]:
    """A trace of what happens within, in `folder`."""
    start_trace(folder)
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error says more
            jax.profiler.stop_trace()
        raise
    jax.profiler.stop_trace()


def cut_short(folder: Path) -> list[str]:
    """A warning for each trace below `folder` whose file for Perfetto ends before the trace does:
    JAX writes a million events to it and leaves out the later ones (*.xplane.pb has them all). One
    that cannot be read is said, too: a warning ends no run.
    """
    warnings: list[str] = []
    for path in sorted(folder.rglob("*.trace.json.gz")):
        try:
            cut = _events(path) >= EVENTS
        except (OSError, EOFError, zlib.error) as error:
            warnings.append(f"warning: {path}: cannot be read ({error}), so that it may be cut")
            continue
        if cut:
            warnings.append(
                f"warning: {path}: JAX leaves out what comes after {EVENTS:,} events; the "
                "*.xplane.pb beside it has all; trace fewer steps"
            )
    return warnings


def _events(path: Path) -> int:
    """How many things of some duration a file for Perfetto has."""
    found, end = 0, b""
    with gzip.open(path) as file:
        while block := file.read(BLOCK):
            end += block
            found += end.count(MARK)
            end = end[1 - len(MARK) :]
    return found


def compilations() -> int:
    """How many times this process has compiled since this was first asked, also where the result
    came from a cache.
    """
    if not _compiled:
        _compiled.append(0)
        jax.monitoring.register_event_duration_secs_listener(_count)
    return _compiled[0]


def _count(event: str, duration_secs: float, **kwargs: str | int) -> None:
    _compiled[0] += event == "/jax/core/compile/backend_compile_duration"


_compiled: list[int] = []
