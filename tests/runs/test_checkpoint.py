"""Sealed files: what is read is what was written, or the damage is named."""

import hashlib
import json
import os
import pickle
import random
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import CheckpointError, JaxcnnError, ResourceError
from jaxcnn.runs.checkpoint import Checkpoints, digest, from_arrays, to_arrays
from jaxcnn.weights.files import read_sealed, write_arrays, write_atomically
from tests.seals import sealed_again


def tree(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "params": {
            "a": generator.normal(size=(3, 4)).astype(np.float32),
            "empty": np.zeros((0, 2), np.float32),
        },
        "low": jnp.asarray(generator.normal(size=5), jnp.bfloat16),
        "flag": jnp.asarray(True),
        "step": jnp.asarray(seed, jnp.int32),
        "key": jax.random.key(seed),
        "none": None,
    }


def equal(a, b):
    return all(
        (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
        for x, y in zip(to_arrays(a).values(), to_arrays(b).values(), strict=True)
    )


def test_a_tree_comes_back_bit_for_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(tree(3), step=3)
    state, step = checkpoints.restore(jax.eval_shape(lambda: tree(0)))
    assert step == 3
    assert equal(state, tree(3))
    assert (
        jax.random.key_data(state["key"]).tolist()
        == jax.random.key_data(jax.random.key(3)).tolist()
    )


def test_another_library_reads_the_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    write_arrays(
        tmp_path / "x.safetensors",
        {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"step": "1"},
    )
    np.testing.assert_array_equal(
        safetensors.load_file(tmp_path / "x.safetensors")["a/b"], np.arange(6).reshape(2, 3)
    )


def test_what_a_kill_between_writing_and_removing_left_too_many_goes_at_the_next_start(tmp_path):
    Checkpoints(tmp_path).save(tree(1), step=1, best=True)
    for step in (2, 3, 4):
        Checkpoints(tmp_path, keep=9).save(tree(step), step=step)  # nothing is removed
    Checkpoints(tmp_path).forget(after=4)
    assert sorted(path.stem for path in Checkpoints(tmp_path).files()) == [
        "best-000000001",
        "last-000000003",
        "last-000000004",
    ]


def mutate(blob: bytes, generator: random.Random) -> bytes:
    """One random damage: a bit flipped, a stretch zeroed, bytes cut off, added or repeated."""
    data, kind, at = bytearray(blob), generator.randrange(5), generator.randrange(len(blob))
    if kind == 0:
        data[at] ^= 1 << generator.randrange(8)
    elif kind == 1:
        data[at : at + 8] = bytes(x ^ 0xFF for x in data[at : at + 8])
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        data += bytes(generator.randrange(1, 9))
    else:
        data[at:at] = data[at : at + generator.randrange(1, 9)] or b"x"
    return bytes(data)


def test_every_damage_is_noticed_and_the_checkpoint_before_is_used(tmp_path):
    generator = random.Random(0)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(tree(1), step=1)
    checkpoints.save(tree(2), step=2)
    newest = tmp_path / "last-000000002.safetensors"
    blob, template = newest.read_bytes(), jax.eval_shape(lambda: tree(0))
    for _ in range(500):
        newest.write_bytes(mutate(blob, generator))
        with pytest.raises(CheckpointError):
            read_sealed(newest)
    for _ in range(20):
        newest.write_bytes(mutate(blob, generator))
        warnings = []
        state, step = checkpoints.restore(template, warn=warnings.append)
        assert step == 1
        assert equal(state, tree(1))
        assert str(newest) in warnings[0]
        (tmp_path / "last-000000002.safetensors.damaged").unlink()


def test_all_damaged_is_refused_and_none_is_deleted(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(tree(1), step=1)
    (tmp_path / "last-000000001.safetensors").write_bytes(b"nonsense")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoints.restore(tree())
    assert len(list(tmp_path.iterdir())) == 1


def test_a_hostile_file_is_refused_quickly_and_runs_nothing(tmp_path):
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return (canary.touch, ())

    def header(text: str) -> bytes:
        return len(text).to_bytes(8, "little") + text.encode()

    hostile = [
        pickle.dumps(Bomb()),
        (2**63).to_bytes(8, "little") + b"{}",
        header("[" * 100_000),
        header('{"__metadata__":{"sha256":"' + "0" * 64 + '"}}'),
        header(
            json.dumps(
                {
                    "__metadata__": {"sha256": "f" * 64},
                    "a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]},
                }
            )
        ),
        b"",
    ]
    for i, blob in enumerate(hostile):
        path = tmp_path / f"hostile{i}"
        path.write_bytes(blob)
        with pytest.raises(CheckpointError):
            read_sealed(path)
    assert not canary.exists()


def of_an_earlier_version(blob):
    """The file sealed as a whole."""
    end = 8 + int.from_bytes(blob[:8], "little")
    header, data = json.loads(blob[8:end]), blob[end:]
    del header["__metadata__"]["sealed"]
    header["__metadata__"]["sha256"] = "0" * 64
    text = json.dumps(header).encode()
    text = len(text).to_bytes(8, "little") + text
    seal = hashlib.sha256(text + data).hexdigest()
    return text.replace(b"0" * 64, seal.encode()) + data


def test_files_of_earlier_versions_sealed_whole_are_read_and_their_damage_seen(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    write_arrays(new, to_arrays(tree(1)), {"step": "1"})
    old.write_bytes(of_an_earlier_version(new.read_bytes()))
    for path in (new, old):
        arrays, metadata = read_sealed(path)
        assert metadata["step"] == "1"
        assert all(np.array_equal(arrays[n], x) for n, x in to_arrays(tree(1)).items())
        blob = path.read_bytes()
        for place in (-1, 12, len(blob) // 2):
            damaged = bytearray(blob)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match="damaged"):
                read_sealed(path)


@pytest.mark.parametrize(
    "old, new", [(b"state_sha", b"state-sha"), (b"header, arr", b"header; arr")]
)
def test_a_header_that_does_not_seal_the_arrays_is_refused(old, new, tmp_path):
    path = tmp_path / "a"
    write_arrays(path, to_arrays(tree(1)), {})
    blob = path.read_bytes()
    assert sealed_again(blob) == blob
    path.write_bytes(sealed_again(blob.replace(old, new)))
    with pytest.raises(CheckpointError, match="SHA-256 does not match"):
        read_sealed(path)


@pytest.mark.parametrize("array", [np.zeros(2, np.complex64), np.array([{}]), np.array(["a"])])
def test_what_safetensors_cannot_hold_is_refused(array, tmp_path):
    with pytest.raises(CheckpointError, match=r"a: dtype .* cannot be stored; known are"):
        write_arrays(tmp_path / "a", {"a": array}, {})
    assert not list(tmp_path.iterdir())


def test_a_state_of_another_experiment_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "x.safetensors"
    write_arrays(path, to_arrays({"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}), {})
    with pytest.raises(CheckpointError) as caught:
        from_arrays(
            {"a": np.zeros(4, np.float32), "c": np.zeros(2, np.float32)},
            read_sealed(path)[0],
            source="x",
        )
    assert all(
        text in str(caught.value)
        for text in ("a: float32[3] in the file, float32[4] expected", "missing c", "unknown b")
    )


def test_old_checkpoints_go_and_the_best_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 6):
        checkpoints.save(tree(step), step=step, best=step in (1, 2))
    assert sorted(p.name[:14] for p in tmp_path.iterdir()) == [
        "best-000000002",
        "last-000000004",
        "last-000000005",
    ]


@pytest.mark.parametrize("limit", [0, 100, 700, 1500])
def test_a_full_disk_loses_nothing_that_was_saved(tmp_path, limit):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(tree(1), step=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Python ignores SIGXFSZ: writing fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(ResourceError, match="free disk space"):
            checkpoints.save({"big": np.zeros(10_000)}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == ["last-000000001.safetensors"]
    assert checkpoints.restore(tree())[1] == 1


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # the child touches no JAX
def test_a_killed_writer_leaves_the_old_or_the_new_file(tmp_path):
    """A child saves step after step and is killed; the newest sealed step is at least the last that
    it acknowledged.
    """
    generator = random.Random(1)
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            arrays = {f"x{i}": np.full(2000, i, np.float32) for i in range(20)}
            for step in range(1, 100_000):
                name = folder / f"last-{step:09d}.safetensors"
                write_arrays(name, {**arrays, "step": np.full(3, step)}, {"step": str(step)})
                os.write(write_end, step.to_bytes(4, "little"))
                if step > 2:
                    (folder / f"last-{step - 2:09d}.safetensors").unlink()
        os.set_blocking(read_end, True)
        for _ in range(generator.randrange(1, 12)):
            acknowledged = int.from_bytes(os.read(read_end, 4), "little")
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(read_end)
        os.close(write_end)
        Checkpoints(folder).clean()
        newest = sorted(folder.iterdir())[-1]
        arrays, metadata = read_sealed(newest)
        assert int(metadata["step"]) >= acknowledged
        assert (arrays["step"] == int(metadata["step"])).all()


def test_a_file_reaches_the_disk_before_its_name_and_then_the_folder(tmp_path, monkeypatch):
    """Else a power cut can leave an empty file under the name of a good one."""
    path, done = tmp_path / "a", []
    path.write_bytes(b"old")
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor):
        fsync(descriptor)
        done.append(("flushed", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    def seen_replace(old, new):
        assert path.read_bytes() == b"old", "not written in place"
        done.append(("named", os.stat(old).st_ino, os.stat(old).st_size))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_atomically(path, [b"new", b"er"])
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert done[:2] == [("flushed", file, 5), ("named", file, 5)]
    assert [(what, inode) for what, inode, _ in done[2:]] == [("flushed", folder)]
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_the_digest_sees_every_bit_and_the_names():
    assert digest(tree(1)) == digest(tree(1))
    changed = tree(1)
    changed["params"]["a"] = np.nextafter(changed["params"]["a"], np.float32(9))
    assert digest(changed) != digest(tree(1))
    assert digest({"a": np.zeros(2)}) != digest({"b": np.zeros(2)})


def test_errors_are_ours():
    assert issubclass(CheckpointError, JaxcnnError)
