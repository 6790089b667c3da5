"""The faults as a program: `python -m tests.faults --minutes 30 --out faults.json`.

Real runs are killed, interrupted, damaged and starved, again and again, until the time is up; each
must go on to the bits of an unbroken run. Prints a table; the exit code is 1 if anything was lost
or came out otherwise.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path


def prepare(folder: Path) -> None:
    """The environment, before JAX is imported: a compilation cache of its own, on CPU."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ.setdefault("NPROC", "2")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, help="so many of each class instead of a time")
    parser.add_argument("--only", nargs="*", help="classes (default: all)")
    parser.add_argument("--recipes", nargs="*", help="what is trained (default: all)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--out", type=Path, help="a JSON file of the result")
    parser.add_argument("--verbose", action="store_true", help="a line after each round")
    parser.add_argument("--list", action="store_true", help="name the classes")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    folder = Path(tempfile.mkdtemp(prefix="jaxcnn-faults-"))
    prepare(folder)
    from tests.faults.recipes import NAMES
    from tests.faults.suite import CLASSES, pick, table
    from tests.faults.world import Tally, World

    if args.list:
        print("\n".join(f"{name}: {(c.call.__doc__ or '').strip()}" for name, c in CLASSES.items()))
        return 0
    if unknown := [name for name in args.only or () if name not in CLASSES]:
        sys.exit(f"--only {unknown[0]!r}: no class; they are: {', '.join(CLASSES)}")
    chosen = {name: CLASSES[name] for name in args.only or CLASSES}
    tallies = {name: Tally() for name in chosen}
    world, begun = World(folder, args.seed, args.recipes or NAMES), time.monotonic()
    rounds = dict.fromkeys(chosen, 0)
    try:
        while name := pick(chosen, tallies, rounds, args.rounds):
            if args.rounds is None and time.monotonic() - begun > 60 * args.minutes:
                break
            start = time.monotonic()
            try:
                chosen[name].call(world, tallies[name])
            except Exception:
                text = traceback.format_exc().strip().splitlines()
                tallies[name].lost.append(f"the suite itself failed: {' | '.join(text[-4:])}")
            tallies[name].seconds += time.monotonic() - start
            rounds[name] += 1
            if args.verbose:
                t = tallies[name]
                at = f"{time.monotonic() - begun:7.1f} s  {name}: {t.tried} tried, {t.held} held"
                print(at, *(t.lost + t.different + t.untidy)[-1:], file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted; what was done:", file=sys.stderr)
    finally:
        kept = any(tally.different or tally.lost for tally in tallies.values())
        if not kept:
            world.close()
    print(table(tallies))
    if args.out:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"when": when, "seed": args.seed, "seconds": round(time.monotonic() - begun)}
        content |= {"classes": {n: dataclasses.asdict(t) for n, t in tallies.items()}}
        args.out.write_text(json.dumps(content, indent=1))
    if kept:
        print(f"kept for a look: {folder}", file=sys.stderr)
    bad = any(tally.lost or tally.different or tally.untidy for tally in tallies.values())
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
