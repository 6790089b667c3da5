"""What lies in the place of weights is told and refused in one sentence; damage is never taken for
weights; nothing of a file is run.
"""

import gzip
import io
import pickle
import re
import tarfile
import zipfile

import numpy as np
import pytest

from jaxcnn.errors import CheckpointError, DataError
from jaxcnn.weights import files
from tests.weights import torch_files

STATE = {"fc.weight": np.ones((3, 4), np.float32), "fc.bias": np.zeros(3, np.float32)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46830571\n"
PAGE = b"<!DOCTYPE html>\n<html><body>404</body></html>"


def as_zip(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def as_tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


class Whole:
    """A network that was saved with its class."""


NO_WEIGHTS = {
    "nothing": (b"", "is empty"),
    "zeros": (bytes(600), "nothing but zeros"),
    "a page": (PAGE, "is a web page"),
    "a page behind a mark and blanks": (b"\xef\xbb\xbf\r\n  " + PAGE, "is a web page"),
    "an answer in XML": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
    "a pointer": (POINTER, "pointer of Git LFS.*git lfs pull"),
    "an answer in JSON": (b'{"error": "Repository not found"}', "is text, no weights"),
    "a sentence": ("Seite nicht gefunden: äöü\n".encode(), "is text, no weights"),
    "gzip": (gzip.compress(b"x"), r"compressed \(gzip\).*unpack"),
    "tar": (as_tar(), "tar archive.*unpack"),
    "zip of something": (as_zip(a="text"), "zip archive that holds a;"),
    "an empty zip": (as_zip(), "zip archive that holds nothing"),
    "a zip cut short": (as_zip(a__data="x" * 500)[:200], "cut short or damaged"),
    "noise": (np.random.default_rng(0).bytes(400), "no whole file of any of the kinds"),
    "a few bytes": (b"\x01\x02", "no whole file of any of the kinds"),
}
ENDINGS = ["w.pth", "w.pt", "w.bin", "w.safetensors", "w.npz", "w.h5"]


def refusal(path):
    """The one sentence of the refusal."""
    with pytest.raises((DataError, CheckpointError)) as error:
        files.read_arrays(path)
    text = str(error.value)
    assert path.name in text
    assert "\n" not in text
    assert "weights_only" not in text
    return text


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_is_no_weights_is_named(kind, ending, tmp_path):
    content, words = NO_WEIGHTS[kind]
    (tmp_path / ending).write_bytes(content)
    assert re.search(words, refusal(tmp_path / ending))


def valid(kind, path):
    """A file of a kind, whatever the ending of its name."""
    if kind == "safetensors":
        files.write_arrays(path, STATE, {})
    elif kind == "NumPy":
        with open(path, "wb") as file:
            np.savez(file, **STATE)
    else:
        torch_files.save(STATE, path, zipped=kind == "PyTorch")


@pytest.mark.parametrize("kind", ["safetensors", "NumPy", "PyTorch", "old PyTorch"])
@pytest.mark.parametrize("ending", [*ENDINGS, "w", "w.onnx", "w.pkl", "W.PTH"])
def test_an_ending_that_says_otherwise_is_refused_with_the_right_one(ending, kind, tmp_path):
    """And one that says the same, in letters of any size, is read."""
    path = tmp_path / ending
    valid(kind, path)
    right = {"safetensors": (".safetensors",), "NumPy": (".npz",)}.get(
        kind, (".pt", ".pth", ".bin")
    )
    if path.suffix.lower() in right:
        np.testing.assert_array_equal(files.read_arrays(path)["fc.weight"], STATE["fc.weight"])
    else:
        assert f"{kind.removeprefix('old ')} file" in refusal(path)
        assert f"name it {path.stem}{right[0]}" in refusal(path)


@pytest.mark.parametrize("kind", ["safetensors", "NumPy", "PyTorch", "old PyTorch"])
def test_no_part_of_a_file_is_taken_for_the_whole(kind, tmp_path):
    """Cut short anywhere: refused, or (a padded zip) all of it is there."""
    endings = {"safetensors": ".safetensors", "NumPy": ".npz"}
    path = tmp_path / f"w{endings.get(kind, '.pth')}"
    valid(kind, path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        refusal(path)


@pytest.mark.parametrize("kind", ["NumPy", "PyTorch"])
def test_a_changed_number_in_an_archive_is_noticed(kind, tmp_path):
    path = tmp_path / ("w.npz" if kind == "NumPy" else "w.pth")
    valid(kind, path)
    whole = path.read_bytes()
    at = whole.index(STATE["fc.weight"].tobytes())
    path.write_bytes(whole[: at + 5] + b"\xff" + whole[at + 6 :])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "tree, words",
    [
        (Whole(), "whole object of Python .*Whole.*state_dict"),
        ({"model": Whole(), "epoch": 3}, "its 'model' is a .*Whole"),
        ({"model": Whole(), "optimizer": STATE}, "its 'model' is a .*Whole"),
        ({"epoch": 3, "lr": 0.1}, "holds no named tensors"),
        (np.ones(3, np.float32), "holds no named tensors"),
        ({}, "holds no named tensors"),
    ],
)
def test_a_pickle_without_weights_is_refused(tree, words, zipped, tmp_path):
    torch_files.save(tree, tmp_path / "w.pth", zipped=zipped)
    assert re.search(words, refusal(tmp_path / "w.pth"))


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_of_a_file_is_run(zipped, tmp_path):
    trap = tmp_path / "made"
    tree = {**STATE, "x": Call(open, str(trap), "w"), "y": Call(exec, "raise SystemExit")}
    torch_files.save(tree, tmp_path / "w.pth", zipped=zipped)
    assert set(files.read_arrays(tmp_path / "w.pth")) == set(STATE)
    assert not trap.exists()


def test_a_pickle_that_torch_did_not_write_is_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"fc.weight": [1.0, 2.0]}))
    assert "not of torch.save" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "lie",
    [
        {"offset": 5},
        {"offset": -1},
        {"shape": (30, 4)},
        {"shape": (10**12,)},
        {"strides": (400, 1)},
        {"strides": (-4, 1)},
        {"shape": (10**6, 10**6), "strides": (0, 0)},  # all of one number
    ],
)
def test_a_tensor_that_asks_for_more_than_its_storage_is_refused(lie, tmp_path):
    class Lying(torch_files.Tensor):
        def __reduce__(self):
            function, (storage, *_) = super().__reduce__()
            said = {"offset": 0, "shape": (3, 4), "strides": (4, 1), **lie}
            return function, (storage, *said.values())

    torch_files.save({"a": Lying(STATE["fc.weight"])}, tmp_path / "w.pth")
    assert "damaged, or not of torch.save (ValueError" in refusal(tmp_path / "w.pth")


def npy(shape):
    """An array that says it has `shape`, and holds 4 numbers."""
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(16)


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (5,)])
def test_an_array_that_says_it_is_larger_than_it_is_is_refused(shape, tmp_path):
    (tmp_path / "w.npz").write_bytes(as_zip(**{"a.npy": npy(shape)}))
    assert "a.npy: the header declares shape" in refusal(tmp_path / "w.npz")


def test_objects_in_an_npz_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{}, None], object))
    assert "no plain arrays" in refusal(tmp_path / "w.npz")


def test_a_cut_hdf5_file_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a/b"] = np.ones(1000)
    whole = (tmp_path / "w.h5").read_bytes()
    for size in (8, 100, len(whole) // 2):
        (tmp_path / "w.h5").write_bytes(whole[:size])
        assert "cut short or damaged" in refusal(tmp_path / "w.h5")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_itself(zipped, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
    path, numbers = tmp_path / "w.pth", torch.arange(24.0).reshape(2, 3, 4)
    saved = {
        "turned": numbers.permute(2, 0, 1),
        "part": numbers[1, :, 1:3],
        "parameter": torch.nn.Parameter(numbers),
        "none": torch.zeros(0, 3),
        "count": torch.tensor(7),
        "low": numbers.to(torch.bfloat16),
        "half": {"of": [numbers.half()]},
        "text": "no array",
    }
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    found = files.read_arrays(path)
    assert set(found) == {*saved} - {"half", "text"} | {"half.of.0"}
    for name in set(found) - {"half.of.0"}:
        expected = saved[name].detach()
        assert str(found[name].dtype) == str(expected.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(found[name].astype(np.float32), expected.float().numpy())
    whole = {"module": torch.nn.Linear(2, 2), "in a dict": {"model": torch.nn.Linear(2, 2)}}
    for thing in whole.values():
        torch.save(thing, path, _use_new_zipfile_serialization=zipped)
        assert "torch.nn.modules.linear.Linear" in refusal(path)
    for kind, words in ((numbers.to_sparse(), "sparse"), (numbers.to(torch.float8_e5m2), "v3")):
        torch.save({"a": kind}, path, _use_new_zipfile_serialization=zipped)
        assert re.search(f"'a' as .*{words}", refusal(path))
