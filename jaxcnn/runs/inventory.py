"""The checkpoints of a run as a list: kind, step, size, whether the seal holds, the metric."""

from typing import Any

from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.runs.open import Run
from jaxcnn.runs.rundir import locked, sweep_in_need
from jaxcnn.weights.files import read_metadata
from jaxcnn.weights.identity import misplaced, read_checkpoint

Row = dict[str, Any]


def inventory(run: Run, *, verify: bool = False) -> list[Row]:
    """A row for each checkpoint, in the order of steps; of a sweep those of its replicas.

    Of each: "file", "kind", "step", "bytes", "seal" ("good" or "bad", "not verified" unless
    `verify`), "fault" (why it is not taken; None), "state_sha256", "metrics" (of the evaluation at
    that step, numbers alone; None where there was none). Unless `verify`, headers alone are read.
    """
    rows: list[Row] = []
    for one in run.replicas:
        evaluations = {r["step"]: r["metrics"] for r in one.history if r["kind"] == "eval"}
        for path in one.checkpoints.files():
            kind, _, step = path.name.partition(".")[0].partition("-")
            row: Row = {"replica": one.record["replica"]} if run.is_sweep else {}
            row |= {"file": str(path), "kind": kind, "step": int(step), "seal": "not verified"}
            row |= {"bytes": None, "fault": None, "state_sha256": None, "metrics": None}
            rows.append(row)
            try:
                row["bytes"] = path.stat().st_size
                metadata = read_metadata(path)
                row["fault"] = misplaced(path.name, metadata, run=one.checkpoints.run) or None
                row["state_sha256"] = metadata.get("state_sha256")
                if verify:
                    row["seal"] = "bad"
                    read_checkpoint(path, run=one.checkpoints.run)
                    row["seal"] = "good"
            except (CheckpointError, OSError) as error:
                row["fault"] = row["fault"] or str(error).removeprefix(f"{path}: ")
            if path.suffix == ".damaged":
                row["fault"] = f"set aside: {row['fault'] or 'it was found damaged'}"
            found = evaluations.get(row["step"])
            if found is not None and row["fault"] is None:
                numbers = {k: v for k, v in found.items() if isinstance(v, int | float)}
                row["metrics"] = numbers
    return rows


def prune(run: Run, keep: int) -> list[str]:
    """Remove all checkpoints but the newest `keep` and the best ones that belong to them; the files
    that were removed.

    Errors: ConfigError for fewer than 1, of a sweep, and of a replica that it has still to train,
    than 2 (its replicas go on from a step that all have); BusyError while it trains.
    """
    whole = run.folder if run.is_sweep else sweep_in_need(run.folder, run.record)
    if keep < (least := 1 if whole is None else 2):
        why = "" if whole is None else ": the replicas of a sweep go on from a step that all have"
        raise ConfigError(f"prune {keep}: keep at least {least} of {run.folder}{why}")
    with locked(run.folder, resume=True):
        return [str(path) for one in run.replicas for path in one.checkpoints.prune(keep)]
