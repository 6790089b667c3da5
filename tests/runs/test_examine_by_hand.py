"""What `check` says of examples, against plain counts of arrays made by hand."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from jaxcnn.errors import DataError
from jaxcnn.runs import examine as module
from jaxcnn.runs.examine import examine
from tests.runs.test_examine import Stream


@dataclasses.dataclass(frozen=True)
class Task:
    """Looks at entries `inputs`; takes what `refuses` does not name."""

    inputs: tuple[str, ...] = ("image",)
    num_classes: int | None = None
    refuses: str = ""

    def check(self, batch):
        if self.refuses == "all together" and len(next(iter(batch.values()))) > 1:
            raise DataError("these rows do not go together")


class Held:
    """Rows in memory as they are, without the checks of those that are given."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(next(iter(self.arrays.values())))


@dataclasses.dataclass(frozen=True)
class Data:
    """Splits of such rows; those that are GONE cannot be opened."""

    rows: dict
    label_names: tuple[str, ...] = ()

    def spec(self):
        return {n: SimpleNamespace(shape=x.shape[1:]) for n, x in self.rows["train"].items()}

    def size(self, split):
        return len(Held(self.rows[split])) if split in self.rows else 0

    def open(self, split):
        if self.rows[split] is GONE:
            raise DataError("gone")
        return Held(self.rows[split])


GONE = {"image": np.zeros((2, 4, 4, 1), np.uint8)}


def looked(train, held=None, *, names=(), task=Task(), **options):
    rows = {"train": train} if held is None else {"train": train, "eval": held}
    data = Data(rows, names)
    return examine(SimpleNamespace(task=task, data=data), **options)


def labelled(*labels):
    """A picture of its own for each label."""
    pictures = np.arange(len(labels) * 50).reshape(-1, 5, 10, 1) % 251
    return {"image": pictures.astype(np.uint8), "label": np.array(labels, np.int32)}


def notes(*labels, held=None, **options):
    """What is said of the labels of training, and of those held out."""
    held = None if held is None else labelled(*held)
    if held is not None:
        held["image"] = 255 - held["image"]
    found = looked(labelled(*labels), held, **options)
    return [found[split]["notes"] for split in found]


def test_labels_are_counted_under_their_names_and_others_under_their_numbers():
    found = looked(labelled(1, 0, 1, 3, 1, -1), names=("ant", "bee"))["train"]
    assert list(found["labels"].items()) == [("-1", 1), ("ant", 1), ("bee", 3), ("3", 1)]
    many = looked(labelled(*[2] * 300, *[1] * 300))["train"]  # of more than one chunk
    assert (many["labels"], many["checked"], many["examples"]) == ({"1": 300, "2": 300}, 600, 600)
    for other in (np.zeros((3, 2), np.int32), np.zeros(3, np.float32)):
        assert looked({**labelled(0, 1, 2), "label": other})["train"]["labels"] == {}


def test_labels_of_boxes_are_counted_where_there_are_boxes():
    rows = {"box_labels": np.int32([[1, 2, 0], [2, 0, 0]]), "image": labelled(0, 1)["image"]}
    assert looked(rows)["train"]["labels"] == {"0": 3, "1": 1, "2": 2}
    rows["boxes_mask"] = np.float32([[1, 1, 0], [1, 0, 0]])
    assert looked(rows)["train"]["labels"] == {"1": 1, "2": 2}


def test_copies_are_rows_whose_inputs_are_all_the_same():
    image = np.zeros((5, 4, 4, 1), np.uint8)
    image[3:] = 1
    other = np.uint8([0, 1, 0, 0, 0]).reshape(5, 1, 1, 1) * np.ones((1, 4, 4, 1), np.uint8)
    rows = {"image": image, "image_b": other, "label": np.int32([0, 0, 1, 2, 2])}

    def found(*inputs, **more):
        one = looked({**rows, **more}, task=Task(inputs))["train"]
        return one["duplicates"], one["conflicts"]

    assert found("image") == (3, 1)
    assert found("image_b") == (3, 3)
    assert found("image", "image_b") == (2, 1)
    assert found("noise") == (1, 0)  # not there: all entries are compared
    without = {"image": image}
    assert looked(without)["train"]["duplicates"] == 3
    assert looked(without)["train"]["conflicts"] == 0
    assert "1 examples are those of others, with another label" in looked(rows)["train"]["notes"]


def test_copies_in_another_split_are_counted_there():
    train, held = labelled(0, 1, 2, 0), labelled(0, 1, 2)
    held["image"][0] += 7
    found = looked(train, held)
    assert (found["train"]["also_in"], found["eval"]["also_in"]) == ({}, {"train": 2})
    assert found["eval"]["notes"][0].startswith("2 examples are also in 'train', to the byte")
    held["image"] += 7
    assert looked(train, held)["eval"]["also_in"] == {}
    held = labelled(1, 1, 1, 2, 5)
    held["image"][:3] = train["image"][1]  # three rows, of one picture
    held["image"][3:] += 7
    assert looked(train, held)["eval"]["also_in"] == {"train": 3}


def test_what_the_table_of_entries_refuses_is_a_fault_of_its_row():
    rows = {"image": np.full((4, 5, 10, 1), 2.0, np.float32)}  # the task's to say
    rows["boxes"] = np.tile(np.float32([0, 0, 1, 1]), (4, 2, 1))
    rows["boxes"][2, 1, 3] = 1.5
    (fault,) = looked(rows)["train"]["faults"]
    assert (fault["count"], fault["row"]) == (1, 2)
    assert "'boxes'" in fault["message"]
    assert "#" in fault["kind"]
    assert "1.5" not in fault["kind"]


def test_a_rule_of_rows_together_is_a_fault_of_the_first():
    found = looked(labelled(0, 1, 2), task=Task(refuses="all together"))["train"]["faults"]
    assert [(fault["count"], fault["row"]) for fault in found] == [(1, 0)]
    one = looked(labelled(0), task=Task(refuses="all together"))["train"]["faults"]
    assert one == []


@dataclasses.dataclass(frozen=True)
class Broken(Stream):
    """Rows that cannot be read, of two kinds."""

    def open(self, split):
        source = super().open(split)
        if split == "train":
            take = source.take

            def refusing(indices):
                for i in indices:
                    if i in self.broken:
                        raise DataError(f"a/{i}.png: {'cut' if i < 3 else 'black'} at {i * 1.5}")
                return take(indices)

            source.take = refusing
        return source


def test_faults_of_a_kind_are_one_the_most_frequent_first(monkeypatch):
    rows = labelled(*range(12))
    found = examine(SimpleNamespace(task=Task(), data=Broken(rows, broken=(2, 5, 7, 11))))["train"]
    assert (found["checked"], found["examples"]) == (8, 12)
    assert [(fault["count"], fault["row"]) for fault in found["faults"]] == [(3, 5), (1, 2)]
    assert [fault["message"] for fault in found["faults"]] == [
        *("a/5.png: black at 7.5", "a/2.png: cut at 3.0"),
    ]
    assert [fault["kind"] for fault in found["faults"]] == ["# black at #", "# cut at #"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_are_described_by_channel(dtype, channels):
    """Of 300 rows, which are more than a chunk; the lowest in the first, the highest after."""
    x = np.random.default_rng(0).integers(20, 200, (300, 4, 6, channels))
    x[..., -1] //= 2
    x[3, 0, 0, 0], x[290, 0, 0, 0], x[7], x[299] = 3, 250, 40, 50
    x = x.astype(np.uint8) if dtype == np.uint8 else (x / 255).astype(np.float32)
    found = looked({"image": x, "label": np.zeros(300, np.int32)})["train"]["pixels"]
    unit = np.float64(x) / (255 if dtype == np.uint8 else 1)
    assert found == {
        **{"dtype": np.dtype(dtype).name, "low": float(x.min()), "high": float(x.max())},
        "mean": np.round(unit.mean((0, 1, 2)), 4).tolist(),  # to four places
        "std": np.round(unit.std((0, 1, 2)), 4).tolist(),
        "constant": 2,
    }


def test_the_first_picture_among_the_inputs_is_described():
    rows = {
        "table": np.full((2, 3, 3, 3), 9.0, np.float32),
        "image": np.full((2, 4, 4), 255, np.uint8),
        "image_b": np.zeros((2, 4, 4, 1), np.uint8),
    }
    found = looked(rows, task=Task(("table", "image", "image_b")))["train"]
    assert (found["pixels"]["mean"], found["pixels"]["std"]) == ([1.0] * 4, [0.0] * 4)
    assert found["pixels"]["constant"] == 2
    assert "2 images are of one value throughout" in found["notes"]
    for other in (("table",), ("image",)):
        flat = {**rows, "image": np.zeros((2, 4), np.uint8)}  # no picture
        assert "pixels" not in looked(flat, task=Task(other))["train"]
    empty = {"image": np.zeros((2, 0, 4, 1), np.uint8)}
    assert "pixels" not in looked(empty)["train"]


@pytest.mark.parametrize(
    "values, dtype, said",
    [
        ((0, 1), np.uint8, "images are bytes of 0 and 1 alone"),
        ((0, 2), np.uint8, None),
        ((0, 255), np.uint8, None),
        ((0, 1 / 255), np.float32, "images reach to 1/255 alone"),
        ((0, 0.00395), np.float32, "images reach to 1/255 alone"),  # as rounding has it
        ((0, 0.00397), np.float32, None),
        ((0, 1.5 / 255), np.float32, None),
        ((0, 1), np.float32, None),
        ((-0.25, 0), np.float32, None),
        ((-1, -0.5), np.float32, None),
    ],
)
def test_pixels_of_an_odd_scale_are_said(values, dtype, said):
    image = np.array(values, dtype)[[0, 1, 1, 0]].reshape(1, 2, 2, 1)
    found = looked({"image": np.concatenate([image, image[:, ::-1]])})["train"]["notes"]
    assert [note[: len(said or "")] for note in found] == ([said] if said else [])


def test_black_pictures_are_constant_and_no_more():
    for dtype in (np.uint8, np.float32):
        found = looked({"image": np.zeros((1, 2, 2, 1), dtype)})["train"]
        assert found["notes"] == ["1 images are of one value throughout"]


@pytest.mark.parametrize(
    "shape, odd",
    [
        *(((height, 8, 8), True) for height in (1, 3, 4)),
        *(((height, 8, 8), False) for height in (2, 5, 8)),
        *(((3, 8, channels), False) for channels in (1, 3, 4)),
        *(((3, 8, channels), True) for channels in (2, 5)),
        *(((3, width, 8), width > 4) for width in (3, 4, 5)),
        ((3, 8), False),
        ((3, 8, 8, 8), False),
    ],
    ids=str,
)
def test_channels_that_come_first_are_said(shape, odd):
    pictures = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.uint8)
    found = looked({"image": pictures}, task=Task(("image",)))["train"]["notes"]
    assert [f"'image' is {[*shape]}, which looks like [channels" in note for note in found] == (
        [True] if odd else []
    )


def test_the_balance_of_the_classes_of_training_is_said():
    assert notes(*[0] * 10, 1) == [
        ["unbalanced: 10 of 0 and 1 of 1; see Balanced (jaxcnn.data.algebra) and class weights"]
    ]
    assert notes(*[0] * 9, 1) == [[]]
    assert notes(*[0] * 2, *[1] * 5, *[2] * 20)[0][0].startswith("unbalanced: 20 of 2 and 2 of 0")
    assert notes(*[0] * 2, *[1] * 19) == [[]]
    assert notes(3, 3) == [["all examples have one class, 3: nothing can be told apart"]]
    assert notes(*[0] * 5, 1, held=[0] * 20 + [1]) == [[], []]  # of those held out it may be so


def test_classes_without_examples_are_named_up_to_ten():
    eleven = tuple("abcdefghijklm")  # and two that are there
    shown = ", ".join(eleven[2:12])
    assert notes(0, 1, names=eleven) == [[f"no example of 11 classes: {shown}"]]
    assert notes(0, 1, 2, task=Task(num_classes=5)) == [["no example of 2 classes: 3, 4"]]
    assert notes(0, 1, task=Task(num_classes=2)) == [[]]
    assert notes(5, 6) == [[]]  # nobody knows which others there are
    many = range(2, 13)
    shown = ", ".join(map(str, [*many][:10]))
    assert notes(0, 1, *many, held=[0, 1]) == [
        [],
        [f"no example of 11 classes of 'train': {shown}"],
    ]
    assert notes(0, 1, held=[0, 1, *many]) == [[], [f"classes that 'train' lacks: {shown}"]]
    assert notes(0, 1, held=[1, 0]) == [[], []]


def test_splits_that_are_not_there_or_cannot_be_opened_say_so_alone():
    found = looked(GONE, labelled(0, 1))
    assert list(found) == ["train", "eval"]
    assert found["train"] == {"error": "gone"}
    assert (found["eval"]["checked"], found["eval"]["notes"]) == (2, [])


def test_a_sample_of_a_stream_says_so_and_the_whole_does_not():
    rows = labelled(*np.arange(600) % 3)
    data = Stream(rows)
    part = examine(SimpleNamespace(task=Task(), data=data))["train"]
    assert part["checked"] < 256
    assert part["labels"] == {"0": 200, "1": 200, "2": 200}  # known without decoding
    unknown = Stream(rows, told=False)
    part = examine(SimpleNamespace(task=Task(), data=unknown))["train"]
    assert (part["checked"], part["examples"]) == (256, 600)
    assert sum(part["labels"].values()) == 256
    assert "a sample of 256 of 600 was looked at; --data looks at all" in part["notes"]
    whole = examine(SimpleNamespace(task=Task(), data=data), full=True)["train"]
    assert whole["checked"] == 600
    assert not [note for note in whole["notes"] if "a sample" in note]


def test_progress_is_told_of_streams_a_chunk_at_a_time(monkeypatch):
    told = []

    def progress(*what):
        told.append(what)

    rows = labelled(*[0] * 600)
    examine(SimpleNamespace(task=Task(), data=Stream(rows)), full=True, progress=progress)
    assert told == [
        *((n, 600, f"train: {n} of 600 examples") for n in (0, 256, 512)),
        (600, 600, "train: done"),
    ]
    told.clear()
    looked(rows, progress=progress)
    assert told == []
    monkeypatch.setattr(module, "CHUNK", 2)
    for size, every in ((198, 2), (200, 4), (239, 4), (299, 4), (300, 6)):  # 50 to 100 times
        told.clear()
        part = {n: x[:size] for n, x in rows.items()}
        examine(SimpleNamespace(task=Task(), data=Stream(part)), full=True, progress=progress)
        assert [done for done, _, _ in told] == [*range(0, size, every), size]
