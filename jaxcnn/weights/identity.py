"""Which run, step and kind a checkpoint of ours is of: written into the file, and compared with its
name and its run before it is used, so that a copy, a swap or another run's file is not taken for
what it is not.
"""

import json
import re
from pathlib import Path

from jaxcnn.errors import CheckpointError
from jaxcnn.weights.files import Arrays, read_sealed

FORMAT = "jaxcnn 1"
NAME = re.compile(r"(last|best)-(\d+)\.safetensors")


def metadata_of(*, run: str | None, step: int, best: bool) -> dict[str, str]:
    """What a checkpoint says of itself. `run`: the identity in run.json; None for a run that was
    made before there was one.
    """
    kinds = "best last" if best else "last"  # the best one is the last one of its step, too
    own = {} if run is None else {"run": run}
    return {"format": FORMAT, "step": str(step), "kinds": kinds, **own}


def read_checkpoint(path: Path, *, run: str | None) -> tuple[Arrays, dict[str, str]]:
    """(arrays, metadata) of a checkpoint of the run `run`, verified to be what its name says.

    Errors: CheckpointError that says what it is.
    """
    arrays, metadata = read_sealed(path)
    if wrong := misplaced(path.name, metadata, run=run):
        raise CheckpointError(f"{path}: {wrong}")
    return arrays, metadata


def misplaced(name: str, metadata: dict[str, str], *, run: str | None) -> str:
    """What a checkpoint of this name is instead; "" where it is what it should be.

    Of a run without an identity, made by an earlier version, files without one are taken.
    """
    matched = NAME.fullmatch(name.removesuffix(".damaged"))
    step, kinds = metadata.get("step", ""), metadata.get("kinds")
    if kinds is None and run is None:
        kinds = "best last"
    if metadata.get("format") != FORMAT:
        return f"is of format {metadata.get('format')!r}, and this version knows {FORMAT!r}"
    if matched is None or not re.fullmatch(r"\d{1,18}", step):
        return f"is no checkpoint of a run (step {step!r})"
    if metadata.get("run") != run:
        return "belongs to another run"
    if int(step) != int(matched[2]):
        return f"is the checkpoint of step {step}, named as step {int(matched[2])}"
    if matched[1] not in str(kinds).split():
        return f"was saved as {kinds!r}, named as {matched[1]!r}"
    return ""


def read_in_place(path: Path) -> Arrays:
    """The arrays of a checkpoint in a run's checkpoints/, verified as by `read_checkpoint`; where
    the run.json beside that folder is gone, by its name alone.

    Errors: CheckpointError.
    """
    arrays, metadata = read_sealed(path)
    record = path.absolute().parents[1] / "run.json"
    run = metadata.get("run")
    if record.is_file():
        try:
            run = json.loads(record.read_bytes().decode()).get("id")
        except (OSError, ValueError, RecursionError, AttributeError) as error:
            raise CheckpointError(f"{record}: cannot be read ({error})") from error
    if wrong := misplaced(path.name, metadata, run=run):
        raise CheckpointError(f"{path}: {wrong}")
    return arrays
