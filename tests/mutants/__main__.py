"""`make mutants`: how many small faults of core, runs, metrics and ops the nearest tests see.

One fault at a time is put into a copy of the package, and the tests of tests/mutants/nearest.py
run until the first fails. What no test sees is printed, as file:line old -> new, and makes the exit
code 1 where less than --least are seen.
"""

import argparse
import json
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.mutants import runner
from tests.mutants.mutations import Mutant, mutants, replaced, sample
from tests.mutants.named import NAMED
from tests.mutants.nearest import NEAREST

ROOMS = ("jaxcnn/metrics/", "jaxcnn/ops/", "jaxcnn/core/", "jaxcnn/runs/")
EQUIVALENT = Path(__file__).with_name("equivalent.json")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--sample", type=int, default=5, help="faults a file (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: %(default)s)")
    parser.add_argument("--only", default="*", help="files, as jaxcnn/ops/*.py")
    parser.add_argument("--named", action="store_true", help="the faults written by hand alone")
    parser.add_argument("--again", type=Path, help="what an earlier --out has as not seen, alone")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--least", type=float, default=0.95, help="share to be seen (0.95)")
    parser.add_argument("--minutes", type=float, help="start no fault after so long")
    parser.add_argument("--out", type=Path, help="write all results here, as JSON")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Mutant]:
    """The faults to try: those of the list, then a sample of each file."""
    found = []
    for path, old, new, what in NAMED:
        if fnmatch(path, options.only):
            found.append(replaced(path, (runner.ROOT / path).read_text(), old, new, what))
    if options.named:
        return found
    if options.again:
        unseen = {
            (fault["path"], fault["old"], fault["new"])
            for fault in json.loads(options.again.read_text())["faults"]
            if not fault["seen"]
        }
        for path in sorted({path for path, _, _ in unseen}):
            found += mutants(path, (runner.ROOT / path).read_text())
        return [mutant for mutant in found if (mutant.path, mutant.old, mutant.new) in unseen]
    same = {(e["path"], e["old"], e["new"]) for e in json.loads(EQUIVALENT.read_text())}
    for room in ROOMS:
        for path in sorted(p for p in NEAREST if p.startswith(room) and fnmatch(p, options.only)):
            ours = [
                mutant
                for mutant in mutants(path, (runner.ROOT / path).read_text())
                if (mutant.path, mutant.old, mutant.new) not in same
            ]
            found += sample(ours, options.sample, options.seed)
    return found


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaving, it ends what it started
    todo = chosen(options)
    start = time.monotonic()
    results: list[tuple[Mutant, runner.Result]] = []
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        runner.prepare(Path(folder))
        copies = [
            runner.copy_of_the_project(Path(folder) / f"copy{i}")
            for i in range(options.workers + 1)  # one stays as it is
        ]
        print(f"{len(todo)} faults", flush=True)
        limits: dict[str, float | None] = {}

        def in_time() -> Iterator[tuple[Mutant, tuple[str, ...], float]]:
            for mutant in todo:
                if options.minutes and time.monotonic() - start > 60 * options.minutes:
                    return
                learn_limits(limits, NEAREST[mutant.path], copies[-1])
                found = {test: limits[test] for test in NEAREST[mutant.path]}
                tests = {test: limit for test, limit in found.items() if limit is not None}
                if tests:
                    yield mutant, tuple(tests), sum(tests.values())

        for mutant, _, result in runner.run_all(in_time(), copies[:-1]):
            if result.code == runner.NO_TESTS:
                raise SystemExit(f"{mutant}: its tests ran none; mend tests/mutants/nearest.py")
            results.append((mutant, result))
            if result.code == runner.GREEN:
                print(f"SURVIVED {mutant}", flush=True)
            if options.out:  # after each, so that a run that is ended leaves what it found
                write(options, results, time.monotonic() - start)
    seen = sum(result.code != runner.GREEN for _, result in results)
    late = sum(result.code is None for _, result in results)
    print(
        f"{seen} of {len(results)} faults seen ({seen / max(len(results), 1):.1%}; {late} by the "
        f"time limit) in {(time.monotonic() - start) / 60:.0f} minutes, seed {options.seed}, "
        f"{len(todo) - len(results)} not tried"
    )
    return int(seen < options.least * len(results))


def learn_limits(limits: dict[str, float | None], tests: Sequence[str], copy: Path) -> None:
    """Adds the seconds allowed to each file of tests: five times what it takes now, and thirty;
    None, said, for one that is skipped here, for want of a package.

    It runs here without a fault, which compiles what it needs, and must be green.
    """
    for test in tests:
        if test in limits:
            continue
        [(_, _, result)] = runner.run_all([(None, (test,), 3600.0)], [copy])
        if result.code == runner.NO_TESTS:
            print(f"{test}: skipped here; faults that it alone could see are not tried", flush=True)
            limits[test] = None
            continue
        if result.code != runner.GREEN:
            log = (copy / "log.txt").read_text(errors="replace")[-4000:]
            raise SystemExit(f"{test} fails without a fault ({result.code}):\n{log}")
        limits[test] = 30 + 5 * result.seconds


def write(
    options: argparse.Namespace, results: Sequence[tuple[Mutant, runner.Result]], seconds: float
) -> None:
    text = json.dumps(
        {
            "command": " ".join(["python -m tests.mutants", *sys.argv[1:]]),
            "python": platform.python_version(),
            "seconds": round(seconds),
            "faults": [
                {
                    "path": mutant.path,
                    "line": mutant.line,
                    "kind": mutant.kind,
                    "old": mutant.old,
                    "new": mutant.new,
                    "seen": result.code != runner.GREEN,
                    "seconds": round(result.seconds, 1),
                    "by": result.failed or {None: "time limit"}.get(result.code, ""),
                }
                for mutant, result in results
            ],
        },
        indent=1,
        ensure_ascii=False,
    )
    temporary = options.out.with_name(f".{options.out.name}.tmp")
    temporary.write_text(text)
    shutil.move(temporary, options.out)


if __name__ == "__main__":
    sys.exit(main())
