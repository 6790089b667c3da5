"""Bytes that are damaged or malicious end in an error of ours, soon and within bounds of memory.

`make fuzz` runs 20,000 inputs for each parser and prints what the dearest cost (docs/LOG.md); here
are few.
"""

import pytest

from tests.data.fuzz import PARSERS, changed, read_whole, refused, write


@pytest.mark.parametrize("name", PARSERS)
def test_the_valid_input_is_read(name, tmp_path):
    write(PARSERS[name], tmp_path)
    assert read_whole(PARSERS[name].data(tmp_path)) > 0


@pytest.mark.parametrize("name", PARSERS)
def test_changed_inputs_are_read_or_refused(name, tmp_path):
    parser = PARSERS[name]
    write(parser, tmp_path)
    target = tmp_path / parser.target
    read_whole(parser.data(tmp_path))  # what is imported once does not count

    def read(data):
        target.write_bytes(data)
        read_whole(parser.data(tmp_path))

    assert refused(changed(parser.files[parser.target]), read)  # else nothing was damaged
