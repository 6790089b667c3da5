"""`bench`: blocks in turns, what disturbs them, and whose order is established. No speed is
asserted.
"""

import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxcnn.bench import load, timing
from jaxcnn.bench.load import Block, Usage


def times(*seconds, **load):
    return timing.timing([Block(s, **load) for s in seconds], batch_size=12)


def test_blocks_alternate_and_the_order_turns_round():
    asked = []
    timers = {name: lambda steps, name=name: asked.append((name, steps)) or 6.0 for name in "abc"}
    blocks = timing.alternate(timers, steps=3, rounds=3, watch=lambda name, run: Block(run()))
    assert "".join(name for name, _ in asked) == "abccbaabc"
    assert blocks == dict.fromkeys("abc", [Block(2.0)] * 3)


def test_throughput_times_time_is_the_batch():
    seconds = [0.25, 0.125, 0.5, 0.3]
    t = times(*seconds)
    assert t["images_per_second"] * t["ms_per_step"] / 1e3 == pytest.approx(12)
    assert t["ms_per_step"] == pytest.approx(1e3 * statistics.median(seconds))
    low, high = t["ms_quartiles"]
    assert low <= t["ms_per_step"] <= high


def test_the_ratio_is_ours_over_the_best_of_theirs():
    variants = {"eager": times(0.004, 0.004), "channels_last": times(0.003, 0.003)}
    result = timing.compare(times(0.006), variants)
    assert (result["variant"], result["ratio"], result["ms_per_step"]) == (
        "channels_last",
        pytest.approx(2.0),
        3.0,
    )


@pytest.mark.parametrize("seconds_a_step, steps", [(0.5, 1), (0.01, 50), (1e-9, 1000)])
def test_a_block_lasts_about_as_long_as_wanted(seconds_a_step, steps):
    assert timing.fitting_steps(lambda n: n * seconds_a_step, block_seconds=0.5) == steps


# ---- whose order is established ------------------------------------------------------------------


@pytest.mark.parametrize(
    "ours, theirs, order",
    [
        ((1, 2, 2, 3, 4, 4, 5), (5, 6, 6, 7, 8, 8, 9), "faster"),  # quartiles 2 to 4, 6 to 8
        ((5, 6, 6, 7, 8, 8, 9), (1, 2, 2, 3, 4, 4, 5), "slower"),
        ((1, 2, 2, 3, 4, 4, 5), (3, 4, 4, 5, 6, 6, 7), "not established"),  # 4 to 6: they touch
        ((1, 4, 4, 9, 9, 9, 9), (5, 6, 6, 7, 8, 8, 9), "not established"),  # one within the other
        ((1,) * 6, (2,) * 6, "not established"),  # too few
        ((1,) * 7, (2,) * 7, "faster"),
    ],
)
def test_an_order_is_established_where_quartiles_are_apart(ours, theirs, order):
    assert timing.order(times(*ours), times(*theirs)) == order
    assert timing.compare(times(*ours), {"eager": times(*theirs)})["order"] == order


def test_equal_subjects_are_seldom_ordered():
    """Of two whose times are drawn alike an order is established in one of eight comparisons at
    most (n = 7); of two that are apart in most."""
    random = np.random.default_rng(0)
    same, apart = 0, 0
    for _ in range(500):
        a, b = times(*random.normal(10, 1, 7)), times(*random.normal(10, 1, 7))
        same += timing.order(a, b) != "not established"
        apart += timing.order(a, times(*random.normal(14, 1, 7))) == "faster"
    assert same / 500 < 1 / 8
    assert apart / 500 > 0.9


# ---- disturbance ---------------------------------------------------------------------------------


class Clock:
    """A machine of two processors: `others` and `stolen`, seconds of either in each block that is
    timed, one after another; our own work is 1 s of processors in a block of 0.5 s.
    """

    def __init__(self, others, stolen=()):
        self.now = [0.0, 0.0, 0.0, 0.0]
        self.others, self.stolen, self.blocks = list(others), list(stolen), 0

    def block(self):
        others = self.others[self.blocks] if self.blocks < len(self.others) else 0.0
        stolen = self.stolen[self.blocks] if self.blocks < len(self.stolen) else 0.0
        self.blocks += 1
        for i, more in enumerate((0.5, 1.0 + others, stolen, 1.0)):
            self.now[i] += more
        return 0.5 + self.blocks / 100  # to be told apart

    def read(self, pid):
        return Usage(*self.now, processors=2)

    def watch(self):
        return load.watched(self.block, read=self.read)


def test_a_quiet_block_is_timed_once():
    block = Clock([0.03]).watch()
    assert (block.attempts, block.disturbed, block.seconds) == (1, False, 0.51)
    assert block.others == pytest.approx(0.03)


@pytest.mark.parametrize("which", ["others", "stolen"])
def test_a_disturbed_block_is_timed_again_until_it_is_not(which):
    block = Clock(**{"others": (), which: [0.4, 0.2, 0.0, 0.4]}).watch()
    assert (block.attempts, block.disturbed, block.seconds) == (3, False, 0.53)
    assert block.others == block.stolen == 0


def test_what_stays_disturbed_is_flagged_and_the_least_of_it_kept():
    clock = Clock([0.4, 0.3, 0.1, 0.2, 0.0])
    block = clock.watch()
    assert clock.blocks == block.attempts == 1 + load.REPEATS
    assert (block.disturbed, block.seconds) == (True, 0.53)
    assert block.others == pytest.approx(0.1)
    t = timing.timing([block, Block(1.0, 0.01, 0.0), Block(1.0, 0.02, 0.0, False, 2)], batch_size=1)
    assert (t["disturbed_blocks"], t["repeated_blocks"]) == (1, 2)
    assert (t["others_share"], t["stolen_share"]) == (pytest.approx(0.1), 0)


def test_a_system_that_does_not_say_leaves_the_load_unknown():
    block = load.watched(lambda: 0.5, read=lambda pid: None)
    assert block == Block(0.5, None, None, False, 1)
    assert timing.timing([block], batch_size=1)["others_share"] is None


@pytest.mark.skipif(load.usage(None) is None, reason="counts of Linux")
def test_the_kernels_counts_tell_our_work_from_that_of_others():
    """A loop of our own is ours; the same loop in another process is somebody else's unless it is
    named."""
    loop = "import time; end = time.perf_counter() + 30\nwhile time.perf_counter() < end: pass"

    def burn():
        end = time.perf_counter() + 0.4
        while time.perf_counter() < end:
            pass
        return 0.4

    def own(pid=None):
        before = load.usage(pid)
        burn()
        after = load.usage(pid)
        assert after.busy - before.busy > 0
        return after.own - before.own

    with subprocess.Popen([sys.executable, "-c", loop]) as other:
        try:
            time.sleep(0.3)
            alone = load.usage(other.pid)
            burn()
            found = load.judged(0.4, alone, load.usage(other.pid))
            assert found.disturbed  # by us, who burn beside it
            assert found.others > 0.05
            assert own() > 0.05
            assert own(other.pid) > 0.05
        finally:
            other.kill()
