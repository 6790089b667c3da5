"""The order of examples, and the sources and data sets that live in memory."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from jaxcnn.data import dataset, stream
from jaxcnn.data.dataset import batch_indices, epoch_order
from jaxcnn.data.made.digits import Digits
from jaxcnn.data.made.synthetic import Synthetic
from jaxcnn.data.made.xor import Xor
from jaxcnn.data.memory import Arrays, MemorySource, canonical, held_out, num_held_out
from jaxcnn.data.stream import StreamSource, in_memory_if_small
from jaxcnn.errors import ConfigError, DataError

# --- the order ---


@pytest.mark.parametrize("size, batch_size", [(12, 4), (13, 4), (7, 7), (5, 12), (1, 3), (100, 1)])
def test_every_example_once_an_epoch(size, batch_size):
    epochs = 3 * batch_size  # so many epochs end on a batch's end
    steps = epochs * size // batch_size
    order = np.concatenate(
        [batch_indices(3, step, size=size, batch_size=batch_size) for step in range(steps)]
    )
    for epoch in order.reshape(epochs, size):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))


def test_order_differs_by_epoch_and_seed_and_depends_on_nothing_else():
    def epoch(seed, number):
        return tuple(batch_indices(seed, number, size=50, batch_size=50).tolist())

    orders = {epoch(seed, number) for seed, number in itertools.product(range(4), range(4))}
    assert len(orders) == 16
    assert epoch(2, 3) == epoch(2, 3)
    ahead = [batch_indices(1, step, size=30, batch_size=8) for step in (9, 2, 500)]
    again = [batch_indices(1, step, size=30, batch_size=8) for step in (500, 2, 9)][::-1]
    np.testing.assert_array_equal(ahead, again)


def test_the_orders_of_epochs_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(dataset, "_orders", {})
    monkeypatch.setattr(dataset, "ORDERS_BYTES", 1000 * 4 * 5)
    first = [epoch_order(7, epoch, 1000) for epoch in range(20)]
    assert sum(order.nbytes for order in dataset._orders.values()) <= dataset.ORDERS_BYTES
    assert epoch_order(7, 19, 1000) is first[19]
    assert epoch_order(7, 3, 1000) is not first[3]
    np.testing.assert_array_equal(epoch_order(7, 3, 1000), first[3])
    monkeypatch.setattr(dataset, "ORDERS_BYTES", 1)
    two = [epoch_order(0, epoch, 1000) for epoch in (0, 1)]
    assert [epoch_order(0, epoch, 1000) is two[epoch] for epoch in (0, 1)] == [True, True]


def test_order_is_uniform():
    """Over many seeds each example comes first equally often: chi-square with 9 degrees of freedom
    stays under its 0.999 quantile.
    """
    first = [batch_indices(seed, 0, size=10, batch_size=1)[0] for seed in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


# --- holding out ---


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 1 / 3, 0.5])
def test_held_out_is_stratified_and_of_the_announced_size(fraction):
    labels = np.random.default_rng(0).integers(0, 7, 501)
    mask = held_out(labels, fraction)
    assert mask.sum() == num_held_out(501, fraction)
    for label in range(7):
        assert abs(mask[labels == label].sum() - fraction * (labels == label).sum()) <= 1


def test_held_out_refuses_everything():
    with pytest.raises(ConfigError, match=r"eval_fraction is 1\.0"):
        held_out(np.zeros(3), 1.0)


# --- memory ---

ARRAYS = {
    "image": np.random.default_rng(1).integers(0, 256, (11, 3, 2, 1), np.uint8),
    "label": np.arange(11, dtype=np.int32),
    "point": np.random.default_rng(2).random((11, 2), np.float32),
}


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3), (2, 1, 4)])
def test_memory_take_gathers_any_index_shape(shape):
    indices = np.random.default_rng(0).integers(0, 11, shape)
    taken = MemorySource(ARRAYS).take(indices)
    for name, array in ARRAYS.items():
        assert isinstance(taken[name], jax.Array)
        assert taken[name].dtype == array.dtype
        np.testing.assert_array_equal(taken[name], array[indices])


def test_memory_keeps_its_own_copy_and_serves_threads():
    # aligned to 64 bytes, which is when JAX may share it instead of copying
    memory = np.empty(4096 + 16, np.int32)
    array = memory[-memory.ctypes.data % 64 // 4 :][:4096]
    array[:] = np.arange(4096)
    source = MemorySource({"label": array})
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(source.take, [np.arange(4096)] * 16))
    array[:] = -1
    for batch in (*taken, source.take(np.arange(4096))):
        np.testing.assert_array_equal(batch["label"], np.arange(4096))


@pytest.mark.parametrize("indices", [[-1], [11], [[0, 3], [2, 99]], [1.0]])
def test_sources_refuse_indices_out_of_range(indices):
    stream = StreamSource(lambda chosen: [{}] * len(chosen), 11, {})
    for source in (MemorySource(ARRAYS), stream):
        with pytest.raises(IndexError, match="indices"):
            source.take(np.array(indices))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"image": np.full((2, 4, 4), 255.0)}, "scale"),
        ({"image": np.full((2, 4, 4), np.nan)}, "scale"),
        ({"image": np.full((2, 4, 4), -1)}, "scale"),
        ({"image": np.zeros((2, 4))}, r"\[N, H, W, C\]"),
        ({"image": np.zeros((2, 4, 4)), "label": np.zeros(3, int)}, "differ"),
        ({"label": np.array(["cat"])}, "numbers"),
        ({"label": np.array([2**40])}, "32 bits"),
        ({"label": np.zeros(0, int)}, "no examples"),
        ({}, "no examples"),
    ],
)
def test_canonical_refuses(arrays, message):
    with pytest.raises(DataError, match=message) as error:
        canonical(arrays, where="the file")
    assert "the file" in str(error.value)


@pytest.mark.parametrize(
    "name, given, shape, dtype",
    [
        ("image", np.zeros((2, 4, 5), np.int64), (2, 4, 5, 1), np.uint8),
        ("image", np.ones((2, 4, 5, 3), np.float64), (2, 4, 5, 3), np.float32),
        ("label", np.zeros(2, np.uint8), (2,), np.int32),
        ("label", np.zeros(2, np.int64), (2,), np.int32),
        ("label", np.zeros(2, bool), (2,), np.int32),
        ("target", np.zeros((2, 3), np.float16), (2, 3), np.float32),
    ],
)
def test_canonical_form(name, given, shape, dtype):
    out = canonical({name: given}, where="here")[name]
    assert (out.shape, out.dtype) == (shape, dtype)


# --- streams ---


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("shape", [(), (0,), (3, 50)])
def test_stream_equals_memory_whatever_the_threads(workers, shape):
    memory = MemorySource(ARRAYS)
    spec = {
        name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in ARRAYS.items()
    }
    stream = StreamSource(
        lambda chosen: [{name: a[i] for name, a in ARRAYS.items()} for i in chosen],
        11,
        spec,
        workers=workers,
    )
    indices = np.random.default_rng(0).integers(0, 11, shape)
    jax.tree.map(np.testing.assert_array_equal, stream.take(indices), dict(memory.take(indices)))


@pytest.mark.parametrize("workers", [1, 3])
def test_stream_raises_what_reading_raises(workers):
    def read(chosen):
        if 7 in chosen:
            raise DataError("file 7 is damaged")
        return [{"label": np.int32(index)} for index in chosen]

    source = StreamSource(read, 300, {"label": jax.ShapeDtypeStruct((), np.int32)}, workers=workers)
    with pytest.raises(DataError, match="file 7"):
        source.take(np.arange(300))


def test_stream_refuses_an_example_of_another_shape():
    source = StreamSource(
        lambda chosen: [{"x": np.zeros(1)}] * len(chosen),
        2,
        {"x": jax.ShapeDtypeStruct((3,), np.float32)},
    )
    with pytest.raises(
        DataError, match=r"\(1,\).*\(3,\)"
    ):  # NumPy alone would broadcast it in silence
        source.take(np.array([0]))


def test_cache_is_used_verified_and_dispensable(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = {"label": jax.ShapeDtypeStruct((), np.int32)}
    reads = []

    def open_it():
        source = StreamSource(
            lambda chosen: reads.append(1) or [{"label": np.int32(index + 5)} for index in chosen],
            40,
            spec,
        )
        return np.asarray(
            in_memory_if_small(source, spec, memory_mib=1, cache_key="a").take(np.arange(40))[
                "label"
            ]
        )

    np.testing.assert_array_equal(open_it(), np.arange(40) + 5)
    np.testing.assert_array_equal(open_it(), np.arange(40) + 5)
    assert len(reads) == 1
    (file,) = (tmp_path / "jaxcnn").iterdir()
    data = bytearray(file.read_bytes())
    data[200] ^= 4  # in the array
    file.write_bytes(data)
    np.testing.assert_array_equal(open_it(), np.arange(40) + 5)
    assert len(reads) == 2
    for name in ("__version__", "version"):  # what decodes them now may do it otherwise
        monkeypatch.setattr(stream, name, lambda _="": "another")
        open_it()
    assert len(reads) == 4
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # cannot be written
    np.testing.assert_array_equal(open_it(), np.arange(40) + 5)


def test_long_decoding_is_said_beforehand_and_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = {"label": jax.ShapeDtypeStruct((), np.int32)}
    before = []

    def read(chosen):
        before.append(capsys.readouterr().err)
        return [{"label": np.int32(index)} for index in chosen]

    def open_it(size, **kept):
        source = StreamSource(read, size, spec)
        in_memory_if_small(source, spec, memory_mib=1, where="Tfds('x'), train", **kept)
        return before[0], "".join(before[1:]) + capsys.readouterr().err

    said = f"Tfds('x'), train: decoding 1,000 examples, to be kept in {tmp_path / 'jaxcnn'}\n"
    assert open_it(1000, cache_key="a") == (said, "")
    before[:] = [""]
    assert open_it(1000, cache_key="a") == ("", "")  # it is there
    before.clear()
    assert open_it(1000) == ("Tfds('x'), train: decoding 1,000 examples\n", "")
    before.clear()
    assert open_it(999) == ("", "")  # as good as at once


# --- data sets ---

DATASETS = {
    "digits": Digits(),
    "digits 32x40": Digits(image_size=(32, 40)),
    "synthetic": Synthetic((4, 5, 3), num_classes=3, num_train=20, num_eval=7),
    "xor": Xor(),
    "arrays": Arrays(ARRAYS, {name: array[:4] for name, array in ARRAYS.items()}),
}


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS.keys())
def test_spec_and_size_hold(dataset):
    assert hash(dataset) == hash(dataset)
    assert dataset.size("test") == 0
    with pytest.raises(DataError, match="'test'"):
        dataset.open("test")
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        dataset.size("trian")
    for split in ("train", "eval"):
        source = dataset.open(split)
        assert len(source) == dataset.size(split)
        taken = source.take(np.array([[0, len(source) - 1]]))
        assert {name: (array.shape, array.dtype) for name, array in taken.items()} == {
            name: ((1, 2, *entry.shape), entry.dtype) for name, entry in dataset.spec().items()
        }


def test_digits_are_those_of_scikit_learn_in_disjoint_splits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    train, held = (
        Digits().open(split).take(np.arange(Digits().size(split))) for split in ("train", "eval")
    )
    labels = np.concatenate([train["label"], held["label"]])
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(bunch["target"]))
    shares = np.bincount(held["label"]) / np.bincount(bunch["target"])
    assert np.all(abs(shares - 0.2) < 0.01)
    rows = (
        [array.tobytes() for array in np.asarray(train["image"])],
        [array.tobytes() for array in np.asarray(held["image"])],
    )
    assert len(set(rows[0]) & set(rows[1])) == 0
    # Each picture shrunk back to 8x8 is nearest to a picture of scikit-learn with its label.
    ink = np.asarray(held["image"], np.float64)[:, 4:24, 4:24, 0]
    # nothing outside the middle 20x20
    assert np.all(np.asarray(held["image"]).sum((1, 2, 3)) == ink.sum((1, 2)))
    small = ink.reshape(len(ink), 4, 5, 4, 5).mean((2, 4))
    originals = bunch["images"].reshape(-1, 4, 2, 4, 2).mean((2, 4)) * (255 / 16)
    nearest = np.argmin(((small[:, None] - originals[None]) ** 2).sum((2, 3)), axis=1)
    assert np.mean(bunch["target"][nearest] == np.asarray(held["label"])) > 0.97
    assert np.asarray(train["image"]).max() > 240


def test_digits_refuse_to_shrink_to_nothing():
    with pytest.raises(ConfigError, match="at least 8"):
        Digits(image_size=(4, 28)).open("train")


def test_synthetic_is_the_same_at_every_opening_and_its_splits_differ():
    one, two, other = (
        Synthetic((8, 8, 1)).open(split).take(np.arange(50))["image"]
        for split in ("train", "train", "eval")
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_xor_is_exclusive_or():
    taken = Xor().open("train").take(np.arange(4))
    point = np.asarray(taken["point"]).astype(bool)
    assert len({tuple(row) for row in point.tolist()}) == 4
    np.testing.assert_array_equal(taken["label"], np.logical_xor(point[:, 0], point[:, 1]))


def test_the_digits_are_those_of_scikit_learn(monkeypatch):
    from sklearn.datasets import load_digits

    from jaxcnn.data.made import digits

    bunch = load_digits()
    for _ in range(2):
        counts, label = digits._counts()
        np.testing.assert_array_equal(counts, bunch["images"])
        np.testing.assert_array_equal(label, bunch["target"])
        monkeypatch.setattr(digits, "find_spec", lambda name: None)  # then by way of scikit-learn
