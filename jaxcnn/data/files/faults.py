"""What becomes of labels that break a rule: refused, left out or mended, counted, and said."""

import threading
import warnings

from jaxcnn.errors import ConfigError, DataError

INVALID = ("error", "skip", "clip")
REMEDY = (
    "Repair it, or leave such labels out and count them: invalid='skip' (with 'clip' boxes are "
    "cut to the image, too)"
)


class _Count:
    """How often each kind of fault occurred, and the first message."""

    def __init__(self) -> None:
        self.total, self.first = 0, ""
        self.kinds: dict[str, int] = {}

    def add(self, message: str, kind: str) -> None:
        self.total, self.first = self.total + 1, self.first or message
        self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def __str__(self) -> str:
        parts = ", ".join(f"{kind} ({count})" for kind, count in self.kinds.items())
        return f"the first: {self.first}" + (f"; of these: {parts}" if len(self.kinds) > 1 else "")


class Faults:
    """Labels that break a rule. With invalid="error" the first is a DataError; with "skip" the
    smallest part that is faulty is left out (the part of a polygon, the object, the image) and
    counted; "clip" does the same, but boxes are cut to the image as long as they reach into it,
    and exchanged corners are put in order.

    `where` says whose labels they are. `say_at_once`: warn while counting, whenever the count has
    grown tenfold. Callable from several threads.
    """

    def __init__(self, where: str, invalid: str):
        if invalid not in INVALID:
            raise ConfigError(
                f"{where}: invalid is {invalid!r}; 'error' refuses labels that break a rule, "
                "'skip' leaves them out, 'clip' cuts boxes to the image and leaves out the rest"
            )
        self.where, self.invalid, self.say_at_once = where, invalid, False
        self._dropped, self._mended, self._noted = _Count(), _Count(), _Count()
        self._next, self._said = 1, 0  # the next count to be said; how many notes were said
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many were left out."""
        return self._dropped.total

    @property
    def any(self) -> bool:
        """Whether there is something to be said: left out, mended or noted."""
        return bool(self._dropped.total or self._mended.total or self._noted.total)

    @property
    def mended(self) -> int:
        """How many were cut, or lost a part of many."""
        return self._mended.total

    @property
    def first(self) -> str:
        """The first that was left out."""
        return self._dropped.first

    def add(self, message: str, *, kind: str = "others") -> None:
        """Take note of a label that breaks a rule and is left out; `message` names the file, the
        object, the value and the rule, `kind` the rule in a few words. Errors: DataError.
        """
        self._count(self._dropped, message, kind)

    def mend(self, message: str, *, kind: str) -> None:
        """Take note of a label that breaks a rule and is kept, but for its faulty part. Errors:
        DataError."""
        self._count(self._mended, message, kind)

    def note(self, message: str, *, kind: str) -> None:
        """Take note of what breaks no rule and yet was guessed or passed over: never refused."""
        with self._lock:
            self._noted.add(message, kind)
            due = self.say_at_once and self._noted.total >= 10 * self._said
        if due:
            self._warn_of_notes()

    def _count(self, counts: _Count, message: str, kind: str) -> None:
        if self.invalid == "error":
            raise DataError(f"{message}. {REMEDY}")
        with self._lock:
            counts.add(message, kind)
            total = self._dropped.total + self._mended.total
            due = self.say_at_once and total >= self._next
            self._next *= 10 if due else 1
        if due:
            self.warn()

    def warn(self) -> None:
        """Say what was left out, mended and noted so far, if anything was."""
        said = []
        if self._dropped.total:
            said.append(
                f"{self._dropped.total} labels break a rule and are left out; {self._dropped}"
            )
        if self._mended.total:
            said.append(f"{self._mended.total} labels break a rule and are mended; {self._mended}")
        if said:
            warnings.warn(f"{self.where}: {'. '.join(said)}", stacklevel=3)
        self._warn_of_notes()

    def _warn_of_notes(self) -> None:
        if self._noted.total > self._said:
            self._said = self._noted.total
            warnings.warn(
                f"{self.where}: guessed or passed over: {self._noted.total}; {self._noted}",
                stacklevel=4,
            )
