"""Bytes that are damaged or malicious end in an error of ours, soon and within bounds of memory.

`make fuzz` runs 20,000 inputs for each parser and prints what the dearest cost (docs/LOG.md); here
are few.
"""

import gc
import os
import resource
import time
import tracemalloc
import warnings

import pytest
from hypothesis import HealthCheck, given, settings

from jaxcnn.errors import JaxcnnError
from tests.data.fuzz import PARSERS, contents, read_whole, write

EXAMPLES = int(os.environ.get("JAXCNN_FUZZ", "40"))
SECONDS, BYTES = 1.0, 256 * 2**20


@pytest.mark.parametrize("name", PARSERS)
def test_the_valid_input_is_read(name, tmp_path):
    write(PARSERS[name], tmp_path)
    assert read_whole(PARSERS[name].data(tmp_path)) > 0


def measure(read) -> tuple[float, int, JaxcnnError | None]:
    """Seconds of the processor, bytes of memory at the peak, and with which error of ours it
    ends."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, error = time.process_time(), None
    tracemalloc.start()  # here alone: hypothesis takes twice as long under it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except JaxcnnError as caught:
        error = caught.with_traceback(None)
    finally:
        took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    return took, max(peak, resident * 1024), error


@pytest.mark.parametrize("name", PARSERS)
def test_changed_inputs_are_read_or_refused(name, tmp_path):
    parser = PARSERS[name]
    write(parser, tmp_path)
    target = tmp_path / parser.target
    read_whole(parser.data(tmp_path))  # what is imported once does not count
    refused, seconds, grown = [], [], []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES < 1000,
        suppress_health_check=list(HealthCheck),
    )
    @given(contents(parser))
    def check(data):
        target.write_bytes(data)
        for _ in range(3):  # what is slow once only is the machine's doing
            took, grew, error = measure(lambda: read_whole(parser.data(tmp_path)))
            if took < SECONDS:
                break
        refused.append(error is not None)
        seconds.append(took)
        grown.append(grew)
        assert took < SECONDS
        assert grew < BYTES

    gc.collect()
    gc.freeze()  # else a reader pays for a search of garbage among everything that is imported
    try:
        check()
    finally:
        gc.unfreeze()
    assert any(refused)  # else nothing was damaged
    print(
        f"{name}: {len(refused)} inputs, {sum(refused)} refused, the slowest "
        f"{max(seconds):.2f} s, the largest {max(grown) / 2**20:.1f} MB"
    )
