"""Data, weights and run directories of somebody who means harm: none of them runs a program, loads
a class, opens a connection or a file outside its folder, or takes more than seconds and 256 MiB;
each ends in an error of ours, or in a result that does no harm.
"""

import re
import warnings

import pytest

from jaxcnn.errors import DataError, JaxcnnError
from jaxcnn.weights import pytorch
from jaxcnn.weights.files import read_arrays
from tests.data.fuzz import png
from tests.hostile import data_attacks, weights_attacks
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


@pytest.mark.parametrize("name", weights_attacks.ATTACKS)
def test_hostile_weights(name, tmp_path, monkeypatch):
    check(weights_attacks.ATTACKS[name], tmp_path, monkeypatch)


@pytest.mark.parametrize("name", weights_attacks.HDF5)
def test_hostile_hdf5(name, tmp_path, monkeypatch):
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["w"] = [7.0] * 4
    attack = weights_attacks.HDF5[name]
    (write,) = attack.files.values()
    (tmp_path / "secret.png").write_bytes(png())
    check(attack._replace(files={"w.h5": write()}), tmp_path, monkeypatch)


@pytest.mark.parametrize("name", weights_attacks.DEFAULTS)
def test_a_pickle_changes_no_function_of_the_reader(name, tmp_path):
    (tmp_path / "w.pth").write_bytes(weights_attacks.archive(weights_attacks.DEFAULTS[name]))
    function = pytorch._REBUILDERS[name]
    before = function.__defaults__, dict(vars(function))
    with pytest.raises(DataError):
        read_arrays(tmp_path / "w.pth")
    assert (function.__defaults__, vars(function)) == before


def check(attack, folder, monkeypatch):
    root = folder / "set"
    root.mkdir()
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
