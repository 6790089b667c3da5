"""Errors that a user can act on, each with a stable exit code of the command line.

A message names the thing, the value, the rule and the remedy. The command line prints it without a
traceback and exits with `exit_code`.
"""


class JaxcnnError(Exception):
    """Base of all errors that jaxcnn raises for a user to read."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: these are messages for a user."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(JaxcnnError, ValueError):
    """An experiment, an override or a command-line argument is wrong."""

    exit_code = 2


class DataError(JaxcnnError, ValueError):
    """Data are missing, damaged, or not what the task expects."""

    exit_code = 3


class CheckpointError(JaxcnnError):
    """A checkpoint is missing, damaged, or does not fit the experiment."""

    exit_code = 4


class DivergedError(JaxcnnError):
    """The loss or a gradient became infinite or NaN."""

    exit_code = 5


class ResourceError(JaxcnnError):
    """Disk, permission, memory or another host of the run is missing."""

    exit_code = 6


class BusyError(JaxcnnError):
    """Another process owns the run directory."""

    exit_code = 7


class DependencyError(ConfigError):
    """An optional package is missing; the message holds the install line."""


class Preempted(JaxcnnError):
    """A signal asked the run to stop; the state was saved and can be resumed."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again, with --resume


def shown(value: object, *, most: int = 200) -> str:
    """`repr(value)` for a message: on one line, with at most `most` characters of it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def did_you_mean(name: str, names) -> str:
    """`; did you mean 'x'?` for the nearest of `names`, or an empty string."""
    import difflib

    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
