"""Training where notebooks train: several times in one process, in a thread, under a running event
loop; and what Ctrl-C does there.
"""

import asyncio
import os
import signal
import threading

import pytest

from jaxcnn.errors import Preempted
from jaxcnn.runs.rundir import SIGNALS
from tests.tiny import fit, stop_at, tiny


def handlers():
    return [signal.getsignal(getattr(signal, name)) for name in SIGNALS]


@pytest.fixture(scope="module")
def bits(tmp_path_factory):
    """The digest of a run that nothing disturbed."""
    return fit(tiny(), tmp_path_factory.mktemp("whole") / "run")["state_sha256"]


def test_a_second_training_in_the_process_has_the_bits_of_the_first(bits, tmp_path):
    before = handlers()
    assert fit(tiny(), tmp_path / "run")["state_sha256"] == bits
    assert handlers() == before, "the signal handlers are the notebook's again"


def test_training_in_a_thread(bits, tmp_path):
    found = []
    before = handlers()
    thread = threading.Thread(target=lambda: found.append(fit(tiny(), tmp_path / "run")))
    thread.start()
    thread.join()
    assert found[0]["state_sha256"] == bits
    assert handlers() == before


def test_training_under_a_running_event_loop(bits, tmp_path):
    """A cell is run by a coroutine of the kernel's loop; another task may hand work to a thread."""

    async def cell():
        return fit(tiny(), tmp_path / "cell")

    async def both():
        return await cell(), await asyncio.to_thread(fit, tiny(), tmp_path / "thread")

    assert [summary["state_sha256"] for summary in asyncio.run(both())] == [bits, bits]


def test_a_first_interrupt_saves_and_the_same_process_resumes(bits, tmp_path):
    before = handlers()
    with pytest.raises(Preempted, match="step 5 of 12, state saved"):
        fit(tiny(), tmp_path / "run", observe=[stop_at(5, signal.SIGINT)])
    assert handlers() == before
    assert fit(tiny(), tmp_path / "run", resume=True)["state_sha256"] == bits


def test_a_second_interrupt_is_keyboard_interrupt_and_the_process_goes_on(bits, tmp_path):
    def interrupt_twice(event):
        if event.kind == "train" and event.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(), tmp_path / "run", observe=[interrupt_twice])
    assert handlers() == before
    assert fit(tiny(), tmp_path / "run", resume=True)["state_sha256"] == bits


def test_what_ipython_shows_of_a_stopped_run_is_one_line(tmp_path):
    with pytest.raises(Preempted) as stopped:
        fit(tiny(), tmp_path / "run", observe=[stop_at(2, signal.SIGINT)])
    (line,) = stopped.value._render_traceback_()
    assert line.startswith("Preempted: stopped by a signal at step 2 of 12, state saved")
