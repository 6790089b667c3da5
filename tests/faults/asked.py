"""Signals: to forked children at random moments and at file operations; to a program of its own,
also while it imports.
"""

import os
import signal
import subprocess
import sys
import threading
import time

from jaxcnn.runs import loop
from tests.faults.children import Child, Ended, at_operation
from tests.faults.recipes import ROOT
from tests.faults.world import Tally, World

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SAVED = 75


def signals(world: World, tally: Tally) -> None:
    """One run that is asked to stop one to three times; a third of the times a second signal
    follows at once, and ends it.
    """
    random, name = world.random, world.any()
    golden, folder = world.golden(name), world.place()
    what, asked = f"{name}:", 0
    for _ in range(random.randint(1, 3)):
        number, twice = random.choice(SIGNALS), random.random() < 0.2
        at, sent = random.choice((0, random.randint(1, 2 * golden.operations))), []
        delay = random.choice((0.0, random.uniform(0, 0.02)))
        hook = (lambda: None) if not at else at_operation(at, folder, _later(number, delay))

        def before(hook=hook) -> None:
            loop.SAVE_SECONDS = random.choice((0.0, 30.0))
            hook()

        child = Child(world.go_on(name, folder), before=before)
        if not at:
            child.sleep(random.uniform(0.0, 1.3 * golden.seconds))
            sent.append(time.monotonic())
            child.send(number)
            if twice:
                child.sleep(random.uniform(0.0, 0.01))
                child.send(number)
        ended = child.wait()
        moment = f"at operation {at} + {delay:.3f} s" if at else f"after {ended.seconds:.2f} s"
        what += f" {'2 x ' * (twice and not at)}{signal.Signals(number).name} {moment},"
        if sent and ended.code != 0:
            tally.latency = max(tally.latency, time.monotonic() - sent[0])
        if not _as_declared(ended, number, tally, what, silent=twice):
            return
        asked += 1
        if ended.code == 0:
            break
    if world.finish(name, folder, tally, what):
        tally.held += asked


def _later(number: int, delay: float):
    def act() -> None:
        if delay:
            threading.Timer(delay, os.kill, (os.getpid(), number)).start()
        else:
            os.kill(os.getpid(), number)

    return act


def _as_declared(
    ended: Ended, number: int, tally: Tally, what: str, *, silent: bool = False
) -> bool:
    """75 with the work saved, or 128 + number before and after training, or after a second one; 0
    where the signal came too late. `silent`: a second signal need not be answered.
    """
    tally.tried += 1
    allowed = (0, SAVED, 128 + number)
    if not tally.ended(ended, allowed, what):
        return False
    if ended.code == SAVED and "--resume" not in ended.err:
        tally.untidy.append(f"{what}: does not say how to go on: {ended.last_words}")
        return False
    if ended.code == 128 + number and not ended.err.strip() and not silent:
        tally.untidy.append(f"{what}: ended without a word ({ended.code})")
        return False
    return True


def programs(world: World, tally: Tally) -> None:
    """A program of its own, `launch.py`, that gets a signal while it starts or trains."""
    random, name = world.random, "plain"
    world.golden(name)
    folder, number = world.place(), random.choice(SIGNALS)
    line = [sys.executable, str(ROOT / "launch.py"), "train", *world.arguments(name)]
    after = random.uniform(0.15, 4.0)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*line, "--run-dir", str(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in SIGNALS] and None,
    )
    time.sleep(after)
    sent = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    ended = Ended(process.returncode, time.monotonic() - sent, out.decode(), err.decode())
    what = f"launch.py: {number.name} after {after:.2f} s"
    if ended.code != 0:
        tally.latency = max(tally.latency, ended.seconds)
    if _as_declared(ended, number, tally, what) and world.finish(name, folder, tally, what):
        tally.held += 1
