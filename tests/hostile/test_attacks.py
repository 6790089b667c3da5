"""Data, weights and run directories of somebody who means harm: none of them runs a program, loads
a class, opens a connection or a file outside its folder, or takes more than seconds and 256 MiB;
each ends in an error of ours, or in a result that does no harm.
"""

import re
import warnings

import pytest

from jaxcnn.errors import JaxcnnError
from tests.data.fuzz import png
from tests.hostile import data_attacks
from tests.hostile.watch import bounded, watched


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program "gs" that leaves a mark, first on the path."""
    tool = tmp_path / "bin" / "gs"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ntouch {tmp_path / 'canary'}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")


@pytest.mark.parametrize("name", data_attacks.ATTACKS)
def test_hostile_data(name, tmp_path, program, monkeypatch):
    attack = data_attacks.placed(data_attacks.ATTACKS[name], tmp_path)
    check(attack, tmp_path, monkeypatch)


def check(attack, folder, monkeypatch):
    root = folder / "set"
    for file, data in attack.files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
    (folder / "secret.png").write_bytes(png())
    monkeypatch.chdir(root)
    message = ""
    with warnings.catch_warnings(), watched(root) as seen, bounded():
        warnings.simplefilter("ignore")
        try:
            attack.read(root)
        except JaxcnnError as error:
            message = str(error)
    assert seen == []
    assert not (folder / "canary").exists()
    if attack.says:
        assert re.search(attack.says, message), message or "was read"
