"""`checkpoints`: those of a run, listed, verified, pruned."""

import json
from pathlib import Path
from typing import Any

from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py checkpoints runs/first --verify"


def add_arguments(parser: Any) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--verify", action="store_true", help="read every file whole and compare its seal"
    )
    parser.add_argument(
        "--prune",
        type=int,
        metavar="N",
        help="keep the newest N, and the best ones that belong to them; remove the others",
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def main(args: Any) -> int:
    """Exit code 4 where a checkpoint is not what it should be, after all were listed."""
    prepare_process()
    from jaxcnn.runs.inventory import inventory, prune
    from jaxcnn.runs.open import open

    run = open(args.run)
    if args.prune is not None:
        if args.prune < 1:
            raise ConfigError(f"--prune {args.prune}: keep at least 1")
        removed = prune(run, args.prune)
        if not args.json:
            print("\n".join(f"removed {path}" for path in removed) or "nothing to remove")
    rows = inventory(run, verify=args.verify)
    if args.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(_line(row))
    bad = [row for row in rows if row["fault"] and not row["fault"].startswith("set aside")]
    if bad:
        raise CheckpointError(
            f"{bad[0]['file']}: {bad[0]['fault']} ({len(bad)} of {len(rows)} checkpoints are not "
            "what they should be; a resume takes the one before)"
        )
    return 0


def _line(row: dict[str, Any]) -> str:
    """A row in words: kind, step, size, seal, digest, metrics or what is wrong."""
    from jaxcnn.runs.writers import format_number

    numbers = list((row["metrics"] or {}).items())[:2]
    shown = "  ".join(f"{name} {format_number(value)}" for name, value in numbers)
    which = f"replica {row['replica']}  " if "replica" in row else ""
    size = "?" if row["bytes"] is None else f"{row['bytes']:,}"
    digest = (row["state_sha256"] or "?")[:12]
    head = f"{which}{row['kind']:4}  step {row['step']:>9,}  {size:>13} bytes  {row['seal']:12}"
    return f"{head}  {digest:12}  {row['fault'] or shown}".rstrip()
