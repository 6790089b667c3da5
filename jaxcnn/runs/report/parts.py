"""The parts of a page as they are made."""

import dataclasses
import os
from collections.abc import Callable

from jaxcnn.errors import JaxcnnError
from jaxcnn.runs.report.page import Html, Section


@dataclasses.dataclass
class Parts:
    """The sections of a page so far, and sentences on what is missing."""

    sections: list[Section] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)

    def add(self, title: str, make: Callable[[], Html | None], *, needed: bool = False) -> None:
        """Add a section, or say why it is missing: a page is better than none. What is no error of
        jaxcnn is a fault of the program, or of a task of one's own; it is said, too, and raised
        where JAXCNN_DEBUG is set.
        """
        try:
            body = make()
        except JaxcnnError as error:
            self.left_out.append(f"{title}: {error}")
        except Exception as error:
            if os.environ.get("JAXCNN_DEBUG"):
                raise
            self.left_out.append(f"{title}: {type(error).__name__}: {error}")
        else:
            if body is not None:
                self.sections.append(Section(title, body, needed))
