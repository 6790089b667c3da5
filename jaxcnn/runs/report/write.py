"""Write the page of a run, or of a sweep."""

from pathlib import Path

from jaxcnn.errors import ConfigError
from jaxcnn.runs.open import Run
from jaxcnn.runs.report import page, solo, sweep
from jaxcnn.runs.report.examples import LOOKED_AT

NAME = "report.html"


def write_report(
    run: Run,
    *,
    path: Path | str | None = None,
    examples: int = LOOKED_AT,
    files_only: bool = False,
) -> list[str]:
    """Write the page of a run to `path` (default: report.html in its folder); sentences on what is
    left out, which the page holds too.

    `examples`: how many of the evaluated examples are looked at one by one. `files_only`: the
    run's files alone are read, the code that it keeps is not executed, and what needs the model is
    left out.
    Errors: those of opening the run's files, ConfigError where `path` is a folder, ResourceError
    where the page cannot be written.
    """
    if examples < 1:
        raise ConfigError(f"--examples {examples}: look at 1 at least")
    file = Path(path) if path else run.folder / NAME
    page.refuse_folder(file)
    make = sweep.sections if run.is_sweep else solo.sections
    parts = make(run, examples=examples, files_only=files_only)
    title = f"{run.record['experiment']}: {run.folder.name}"
    content = page.document(title, parts.sections, left_out=parts.left_out)
    page.write(file, content)
    return parts.left_out
