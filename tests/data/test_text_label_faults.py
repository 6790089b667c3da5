"""Labels of text on pictures as the benchmarks write them: dialects are told apart or refused; and
lists of lines of text."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.data.files.icdar import Icdar
from jaxcnn.data.files.icdar_dialects import DIALECTS, parse_line, read_line
from jaxcnn.data.files.text_lines import TextLineFolder
from jaxcnn.errors import ConfigError
from jaxcnn.ops.alphabet import decode
from tests.data.faults import check, picture, take_all, turned

Q = "5,5,25,5,25,15,5,15"
RIGHT = [(5, 5), (25, 5), (25, 15), (5, 15)]
CURVE = "5,12,12,6,20,4,28,6,35,12,35,22,28,16,20,14,12,16,5,22"  # ten corners, from x 5 to 35
CTW = ",".join(f"{x},{y}" for x, y in [(5 + 2 * i, 5) for i in range(7)]) + "," + ",".join(
    f"{x},{y}" for x, y in [(17 - 2 * i, 15) for i in range(7)]
)  # fmt: skip
OFFSETS = "5,5,17,15," + ",".join(
    f"{x},{y}" for x, y in [(2 * i, 0) for i in range(7)] + [(12 - 2 * i, 10) for i in range(7)]
)
TOTAL = "x: [[5 25 25 5]], y: [[5 5 15 15]], ornt: [u'h'], transcriptions: [u'{}']"


def folder(root: Path, *files: str, size=(40, 60)) -> Path:
    """An image and a file of labels for each of `files`."""
    for i, text in enumerate(files):
        picture(root / f"img_{i}.png", size)
        (root / f"gt_img_{i}.txt").write_bytes(text.encode())
    return root


def found(root: Path, **options) -> list[tuple[int, int]]:
    """(texts to find, texts ignored) of each image."""
    taken = take_all(Icdar(str(root), image_size=(40, 60), eval_fraction=0.0, **options))
    columns = (taken[name].sum(axis=1) for name in ("polygons_mask", "polygons_ignored"))
    return [tuple(map(int, row)) for row in zip(*columns, strict=True)]


MORE, UNTOLD = "corners; it becomes the smallest rectangle", "could be of several dialects"


@pytest.mark.parametrize(
    "files, expected, said",
    [
        pytest.param(["5,5,25,15,Hi\n6,6,9,9,###\n"], [(1, 1)], "", id="2013"),
        pytest.param(['38 5 50 15 "Tired"\n5 5 25 15 "12"\n'], [(2, 0)], "", id="2013, blanks"),
        pytest.param(["5, 5, 25, 15, 12\n5,5,25,15,Room 7\n"], [(2, 0)], "", id="2013, digits"),
        pytest.param(["5,5,25,15,12\n"], [(1, 0)], "", id="2013, digits alone"),
        pytest.param(["25,5,20,10,Hi\n"], "left, top, width, height", "", id="width and height"),
        pytest.param([f"{Q},Hi\n{Q},###\n", f"{Q},a, b\n"], [(1, 1), (1, 0)], "", id="2015"),
        pytest.param([f"\ufeff{Q},1,000\r\n{Q},12\r{Q},\n"], [(3, 0)], "", id="2015, digits"),
        pytest.param([f"{Q},#\n{Q},####\n"], [(1, 1)], "", id="2015, marks"),
        pytest.param([Q.replace(",", " ") + " Hi there\n"], [(1, 0)], "", id="2015, blanks"),
        pytest.param([f"{Q},He\u2028llo\n{Q},a\x0bb\n"], [(2, 0)], "", id="2015, separators"),
        pytest.param([f"{Q},Latin,Hi\n{Q},None,###\n{Q},Latin,###\n"], [(1, 2)], "", id="2017"),
        pytest.param([f"{Q},Latin,a, b\n{Q},Symbols,1\n"], [(2, 0)], "", id="2017, commas"),
        pytest.param([f"{Q},Latin,Hi\n", f"{Q},Hi\n"], UNTOLD, "", id="2017 and 2015"),
        pytest.param([f"{Q},Elvish,{c}\n" for c in "abc"], UNTOLD, "", id="another script"),
        pytest.param([f'{Q},0,"Hi"\n{Q},1,"a"\n{Q},0,"###"\n'], [(1, 2)], "", id="rctw"),
        pytest.param([f'{Q},0,"a, b"; \n{Q},1,"a";\n'], [(1, 1)], "", id="rctw, semicolons"),
        pytest.param([f"{Q},0,a\n{Q},1,b\n{Q},0,c\n"], UNTOLD, "", id="rctw without quotes?"),
        pytest.param([f"{CURVE},Hi\n{CURVE},###\n"], [(1, 1)], MORE, id="polygons"),
        pytest.param([f"{CURVE},12\n{CURVE},a, b\n"], [(2, 0)], MORE, id="polygons, digits"),
        pytest.param([f"{CURVE},Hi\n", f"{Q},Hi\n"], UNTOLD, "", id="polygons and 2015?"),
        pytest.param([f"{CTW},####Hi\n{CTW},#######\n"], [(1, 1)], MORE, id="ctw1500"),
        pytest.param([f"{OFFSETS}\n", f"{OFFSETS}\n"], [(1, 0), (1, 0)], MORE, id="offsets"),
        pytest.param([f"{OFFSETS}\n{CURVE},Hi\n"], UNTOLD, "", id="ctw1500 and polygons"),
        pytest.param([TOTAL.format("it's") + "\n" + TOTAL.format("#")], [(1, 1)], "", id="total"),
        pytest.param([TOTAL.format("a").replace("5 25 25", "5 25\n 25")], [(1, 0)], "",
                     id="total, wrapped"),
        pytest.param([TOTAL.format("a"), f"{Q},Hi\n"], UNTOLD, "", id="total and 2015"),
        pytest.param([f"{Q},Hi\n", "5,5,25,15,Hi\n"], UNTOLD, "", id="2015 and 2013"),
        pytest.param([f"{Q},Hi\n\nhello\n"], "line 3: 'hello' is not x1,y1", "", id="no numbers"),
        pytest.param(["1e400," + Q[2:] + ",Hi\n"], "is not finite", "", id="10^400"),
        pytest.param(["", "\n\n"], [(0, 0), (0, 0)], "", id="no text"),
    ],
)  # fmt: skip
def test_dialects(tmp_path, files, expected, said):
    check(lambda: found(folder(tmp_path, *files)), expected, said)


@pytest.mark.parametrize(
    "dialect, line, corners, text, ignored",
    [
        ("2013", "5,5,25,15,Latin,a", RIGHT, "Latin,a", False),
        ("2015", f"{Q},Latin,###", RIGHT, "Latin,###", False),
        ("2015", f"{Q},1,2,3", RIGHT, "1,2,3", False),
        ("2017", f"{Q},Latin,###", RIGHT, "###", True),
        ("2017", f"{Q},Hello", None, "", False),
        ("rctw", f'{Q},1,"a ""b"""', RIGHT, 'a ""b""', True),
        ("rctw", f'{Q},2,"a"', None, "", False),
        ("polygons", f"{Q},30,30,a", [*RIGHT, (30, 30)], "a", False),
        ("polygons", f"{Q},12", RIGHT, "12", False),
        ("ctw1500", f"{Q},####a, b", RIGHT, "a, b", False),
        ("ctw1500", f"{Q},a", None, "", False),
        ("total-text", TOTAL.format("a"), RIGHT, "a", False),
        ("total-text", TOTAL.format("##"), RIGHT, "##", True),
        ("total-text", TOTAL.format("a").replace("5 5 15", "5 5"), None, "", False),
        (
            "2015",
            "5.5,5,25,5,+25,15e0,-5,15,x",
            [(5.5, 5), (25, 5), (25, 15), (-5, 15)],
            "x",
            False,
        ),
    ],
)
def test_lines_of_a_dialect(dialect, line, corners, text, ignored):
    parsed = parse_line(read_line(line, "x"), dialect)
    assert parsed == (None if corners is None else (corners, text, ignored))


def item(flag="illegibility", text="Hi", value=False, points=RIGHT, **more) -> dict:
    return {"points": points, "transcription": text, flag: value, **more}


FLAT = [5, 5, 25, 5, 25, 15, 5, 15]
LATIN = {"language": "Latin"}
TEN = [list(pair) for pair in zip(*[iter(map(int, CURVE.split(",")))] * 2, strict=True)]
SHARED = [item(**LATIN), item(text="no", value=True, **LATIN)]
WRONG = "is in none of the forms of JSON"


@pytest.mark.parametrize(
    "labels, expected, said",
    [
        pytest.param({"img_0": SHARED, "img_1": []}, [(1, 1), (0, 0)], "", id="ArT"),
        pytest.param({"img_0": [item(points=TEN)], "img_1": []}, [(1, 0), (0, 0)], MORE,
                     id="ArT, ten corners"),
        pytest.param({"img_1": [item(text="###", value=True)], "img_0": [item(), item()]},
                     [(2, 0), (0, 1)], "", id="LSVT"),
        pytest.param({"img_0": [item(text="###")], "img_1": []}, [(0, 1), (0, 0)], "", id="###"),
        pytest.param({"img_0": [], "img_1": [], "img_2": []}, [(0, 0), (0, 0)], "has no image",
                     id="labels of no image"),
        pytest.param({"img_0": []}, "img_1.png: .* has no entry 'img_1'", "", id="no labels"),
        pytest.param({"img_0": [{"transcription": "a"}], "img_1": []}, "weak labels of LSVT", "",
                     id="LSVT, weak"),
        pytest.param({"img_0": [item("ignore")], "img_1": []}, "'illegibility' is absent", "",
                     id="another flag"),
        pytest.param({"img_0": [item(value="perhaps")], "img_1": []}, "true or false", "",
                     id="no flag"),
        pytest.param({"img_0": [item(text=None)], "img_1": []}, "must be a string", "", id="null"),
        pytest.param({"img_0": [item(points=RIGHT[:3])], "img_1": []}, "four or more corners", "",
                     id="three corners"),
        pytest.param({"img_0": [item(points=[[1, 2, 3]] * 4)], "img_1": []}, "four or more", "",
                     id="triples"),
        pytest.param({"img_0": ["Hi"], "img_1": []}, "a text is an object", "", id="a string"),
        pytest.param({"lines": [], "chars": []}, r"name the folder of these files", "", id="ReCTS"),
        pytest.param({"images": [], "annotations": [], "categories": []}, WRONG, "", id="COCO"),
        pytest.param({"imgs": {}, "anns": {}}, WRONG, "", id="COCO-Text"),
        pytest.param([], "holds no object", "", id="a list"),
        pytest.param('{"img_0": [], "img_0": []}', r"has \['img_0'\] more than once", "",
                     id="twice"),
        pytest.param("{", "cannot be read as JSON", "", id="damaged"),
    ],
)  # fmt: skip
def test_one_json_file_for_all_images(tmp_path, labels, expected, said):
    root, file = tmp_path / "train", tmp_path / "labels.json"
    for i in range(2):
        picture(root / f"img_{i}.png", (40, 60))
    file.write_text(labels if isinstance(labels, str) else json.dumps(labels))
    check(lambda: found(root, labels=str(file)), expected, said)


@pytest.mark.parametrize(
    "labels, expected",
    [
        pytest.param({"lines": [item("ignore", value=0, points=FLAT)], "chars": [1]}, [(1, 0)],
                     id="a line"),
        pytest.param({"lines": [item("ignore", value=v, points=FLAT) for v in (1, 0, 0)]},
                     [(2, 1)], id="ignored"),
        pytest.param({"lines": [item("ignore", value=2)]}, "'ignore' is 2", id="no flag"),
        pytest.param({"lines": [item()]}, "'ignore' is absent", id="ArT's flag"),
        pytest.param({"img_0": [item()]}, "names?d itself: labels=", id="ArT"),
    ],
)  # fmt: skip
def test_a_json_file_for_each_image(tmp_path, labels, expected):
    picture(tmp_path / "img_0.png", (40, 60))
    (tmp_path / "img_0.json").write_text(json.dumps(labels))
    check(lambda: found(tmp_path), expected)


def test_corners_of_json_are_those_of_lines(tmp_path):
    """Also of images in folders, whose names stand alone in the file."""
    texts = []
    for i, points in enumerate((RIGHT, FLAT)):
        picture(tmp_path / "train" / str(i) / f"gt_{i}.png", (40, 60))
        texts.append(item(points=points))
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({f"gt_{i}": [text] for i, text in enumerate(texts)}))
    data = Icdar(str(tmp_path / "train"), labels=str(file), image_size=(40, 60), eval_fraction=0.0)
    expected = np.array(RIGHT)[:, ::-1] / (40, 60)
    np.testing.assert_allclose(take_all(data)["polygons"], [[expected]] * 2, rtol=1e-6)
    with pytest.raises(ConfigError, match="leave dialect out"):
        replace(data, dialect="2015").spec()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_that_is_said_holds_for_all_lines(tmp_path, dialect):
    root = folder(tmp_path, "5,5,25,15,20,25,5,15,0,Hi\n")
    fits = dialect in ("2013", "2015", "rctw")
    expected = [(1, 0)] if fits else f"is not {DIALECTS[dialect][:8]}".replace("[", r"\[")
    check(lambda: found(root, dialect=dialect), expected)


def test_another_dialect_is_refused():
    with pytest.raises(ConfigError, match="did you mean '2015'"):
        Icdar("x", dialect="20155")


def test_curves_become_the_smallest_rectangle(tmp_path):
    """Ten corners on a slanted bar: the corners of the bar."""
    along, across = np.array([30.0, 15.0]), np.array([-3.0, 6.0])
    steps = np.linspace(0, 1, 5)[:, None]
    start = np.array([15.0, 8.0])
    outline = np.concatenate([start + steps * along, start + across + steps[::-1] * along])
    line = ",".join(f"{v:.6f}" for v in outline.ravel())
    data = Icdar(str(folder(tmp_path, line + ",Hi")), image_size=(40, 60), eval_fraction=0.0)
    with pytest.warns(UserWarning, match="has 10 corners"):
        corners = take_all(data)["polygons"][0, 0] * [40, 60]
    bar = np.array([start, start + along, start + along + across, start + across])[:, ::-1]
    np.testing.assert_allclose(corners, bar, atol=1e-3)


def test_files_of_labels_are_found_by_name_in_any_form(tmp_path):
    for i, (prefix, form) in enumerate([("gt_", "NFC"), ("poly_gt_", "NFD"), ("", "NFD")]):
        picture(tmp_path / "im" / (unicodedata.normalize("NFC", f"café{i}") + ".png"), (40, 60))
        name = unicodedata.normalize(form, f"{prefix}café{i}.txt")
        (tmp_path / "gt").mkdir(exist_ok=True)
        (tmp_path / "gt" / name).write_text(f"{Q},Hi\n")
    check(lambda: found(tmp_path / "im", labels=str(tmp_path / "gt")), [(1, 0)] * 3)


def test_a_picture_that_is_turned_is_said(tmp_path):
    root = folder(tmp_path, f"{Q},Hi\n")
    picture(root / "img_0.png", (40, 60), exif=turned(3))
    check(lambda: found(root), [(1, 0)], "EXIF orientation")


# --- lines of text ---

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "images, content, expected",
    [
        (["a.png"], "a.png\tHi there", ["Hi there"]),
        (["my photo 1.png"], "my photo 1.png\tHi", ["Hi"]),
        (["my photo 1.png"], "my photo 1.png Hi there", ["Hi there"]),
        (["my photo 1.png"], "my photo 1.png, Hi, there", ["Hi, there"]),
        (["my, photo.png"], '"my, photo.png", "Hi"', ["Hi"]),
        (["a b.png", "a b.png c.png"], "a b.png c.png x", "names of 2 files"),
        (["a b.png", "a b.png c.png"], "a b.png\tc.png x", ["c.png x"]),
        (["sub/a.png"], "sub\\a.png Hi", ["Hi"]),
        (["a.png"], "b.png Hi", "b.png: there is no such image file"),
        (["a.png"], "my b.png Hi", "my b.png: there is no such image file"),
        (["a.png"], "a.png", "has no text"),
        ([f"{NFC}.png"], f"{NFD}.png {NFD}", [NFC]),
        ([f"{NFD}.png"], f"{NFC}.png\t{NFC}", [NFC]),
        (["a.png"], "a.png\tx\u2028y\x0cz\r\na.png\tu\u0085v", ["x\u2028y\x0cz", "u\u0085v"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_of_lists(tmp_path, images, content, expected, encoding):
    for name in images:
        picture(tmp_path / name)
    (tmp_path / "labels.txt").write_bytes(content.encode(encoding))

    def texts():
        data = TextLineFolder(str(tmp_path), eval_fraction=0.0, image_size=(8, 12))
        return decode(take_all(data)["text"], alphabet="".join(data.label_names))

    check(texts, expected)


def test_lists_in_another_encoding(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "labels.txt").write_bytes("a.png\tcafé".encode("latin-1"))
    check(TextLineFolder(str(tmp_path)).spec, "labels.txt, line 1: .*Latin-1.*save it as UTF-8")


def test_an_alphabet_is_composed():
    with pytest.raises(ConfigError, match="normal form C"):
        TextLineFolder("x", alphabet=NFD)


def test_of_too_many_polygons_the_largest_are_kept_and_ignored_ones_are_no_fault(tmp_path):
    small, large, unread = "5,5,8,8,a", "5,10,45,30,b", "30,5,58,35,###"
    root = folder(tmp_path, f"{small}\n{unread}\n{large}\n{small}\n")
    data = Icdar(
        str(root),
        image_size=(40, 60),
        eval_fraction=0.0,
        dialect="2013",
        invalid="skip",
        max_items=1,
    )
    with pytest.warns(UserWarning, match="has 3 polygons; max_items=1 .* only the largest"):
        taken = take_all(data)
    np.testing.assert_allclose(taken["polygons"][0, 0, 0], [10 / 40, 5 / 60], rtol=1e-6)
    room = replace(data, invalid="error", max_items=3)
    with pytest.warns(UserWarning, match="not all of the ignored are known"):
        assert take_all(replace(room, path=str(folder(tmp_path / "b", f"{small}\n" * 3 + unread))))[
            "polygons_mask"
        ].tolist() == [[1, 1, 1]]
