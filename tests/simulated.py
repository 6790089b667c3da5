"""Checks that need several devices, in a process of its own that sees simulated ones."""

import json
import subprocess
import sys

from tests.conftest import ROOT
from tests.rounding import quick_environment


def found_by(module, *words, devices):
    """What the module `tests.core.<module>` prints as JSON."""
    # Simulated devices wait for one another on XLA's thread pool: fewer threads than devices in
    # flight can deadlock (docs/LOG.md).
    environment = quick_environment(f"--xla_force_host_platform_device_count={devices}")
    environment |= {"NPROC": "16", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.core.{module}", *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
