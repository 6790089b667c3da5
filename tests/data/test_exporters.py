"""Labels as people and their programs write them: each row of a table is a small folder and what is
right for it. COCO, Pascal VOC and YOLO label the same picture; what is said once holds for all.
"""

import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.files.class_names import read_class_names
from jaxcnn.data.files.coco import Coco
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.voc import Voc
from jaxcnn.data.files.yolo import Yolo
from jaxcnn.errors import DataError

HEIGHT, WIDTH = SIZE = (40, 60)
BOX = [10 / 40, 5 / 60, 20 / 40, 25 / 60]  # of each object, but where the table says otherwise
MASKS = ("instance_masks",)


def take_all(data, split: str = "train") -> dict[str, np.ndarray]:
    source = data.open(split)
    taken = {name: np.asarray(array) for name, array in source.take(np.arange(len(source))).items()}
    assert {name: (array.shape[1:], array.dtype) for name, array in taken.items()} == {
        name: (entry.shape, entry.dtype) for name, entry in data.spec().items()
    }
    return taken


def save(path: Path, size=SIZE, seed: int = 0, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


# --- COCO ---


def coco_content() -> dict:
    """Two images with an object each."""
    numbers = (1, 2)
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in numbers
        ],
        "annotations": [
            {
                "id": i, "image_id": i, "category_id": 7, "bbox": [5, 10, 20, 10], "area": 150,
                "iscrowd": 0, "segmentation": [[5, 10, 25, 10, 25, 20, 5, 20]],
                "keypoints": [6, 12, 2],
            }
            for i in numbers
        ],
        "categories": [
            {"id": 7, "name": "cat", "supercategory": "none", "keypoints": ["nose"]},
            {"id": 9, "name": "dog", "supercategory": "none"},
        ],
    }  # fmt: skip


def put(place: str, value):
    """A change of an annotation file: the value at keys parted by dots; "*" for all of a list."""

    def change(node, keys=tuple(place.split("."))):
        for key in range(len(node)) if keys[0] == "*" else [keys[0]]:
            key = int(key) if isinstance(node, list) else key
            if len(keys) == 1:
                node[key] = value(node[key]) if callable(value) else copy.deepcopy(value)
            else:
                change(node[key], keys[1:])

    return change


def drop(place: str):
    path, _, name = place.rpartition(".")
    return put(path, lambda node: {key: value for key, value in node.items() if key != name})


def both(*changes):
    def change(content):
        for each in changes:
            each(content)

    return change


@pytest.fixture
def coco(tmp_path):
    """A function from a change of the content, and how the file is written, to the data set."""
    for i in (1, 2):
        save(tmp_path / "images" / f"{i}.png", seed=i)
        save(tmp_path / "images" / "a b" / f"{i}.png", seed=i)

    def make(change=lambda content: None, *, write=None, **options) -> Coco:
        content = coco_content()
        change(content)
        file = tmp_path / "labels.json"
        file.write_bytes((write or (lambda text: text.encode()))(json.dumps(content)))
        options = {"image_size": SIZE, "eval_fraction": 0.0, **options}
        return Coco(str(file), str(tmp_path / "images"), **options)

    return make


ROOT = {"id": 0, "name": "animals", "supercategory": "none"}
AS_IT_IS = [
    # K5: encodings
    ("mark", None, {"write": lambda text: text.encode("utf-8-sig")}),
    ("UTF-16", None, {"write": lambda text: text.encode("utf-16")}),
    ("UTF-32", None, {"write": lambda text: text.encode("utf-32")}),
    # K7: numbers, ids and flags in other clothes
    ("ids as strings", put("annotations.*.image_id", str), {}),
    ("ids as floats", both(put("images.*.id", float), put("annotations.*.category_id", float)), {}),
    ("ids as '1.0'", both(put("images.*.id", lambda i: f"{i}.0")), {}),
    ("categories as strings", put("categories.*.id", str), {}),
    ("ids that are names", both(put("images.*.id", lambda i: f"a{i}"),
                                put("annotations.*.image_id", lambda i: f"a{i}")), {}),
    ("boxes as strings", put("annotations.*.bbox", ["5", "10.0", "2e1", "10"]), {}),
    ("sizes as strings", put("images.*.height", str), {}),
    ("sizes as floats", put("images.*.width", float), {}),
    ("corners as strings", put("annotations.*.segmentation.0.*", str), {}),
    ("points as strings", put("annotations.*.keypoints.*", str), {"entries": ("points",)}),
    *[(f"iscrowd {no!r}", put("annotations.*.iscrowd", no), {})
      for no in ("0", "0.0", 0.0, False, None, "false", "")],
    ("no iscrowd", drop("annotations.*.iscrowd"), {}),
    # K8: sizes that are not known
    *[(f"height {no!r}", put("images.*.height", no), {}) for no in (0, -1, None, "")],
    ("no sizes", both(drop("images.*.height"), drop("images.*.width")), {}),
    # K9: exporters' habits
    ("no segmentation", drop("annotations.*.segmentation"), {}),
    ("empty segmentation", put("annotations.*.segmentation", []), {}),
    ("segmentation of an object", put("annotations.*.segmentation", {}), {}),
    ("a flat polygon", put("annotations.*.segmentation", lambda s: s[0]), {"entries": MASKS}),
    ("a polygon of points", put("annotations.*.segmentation",
                                [[[5, 10], [25, 10], [25, 20], [5, 20]]]), {"entries": MASKS}),
    ("ids from 0", both(put("annotations.*.id", lambda i: i - 1),
                        put("images.*.id", lambda i: i - 1),
                        put("annotations.*.image_id", lambda i: i - 1)), {}),
    ("no ids of annotations", drop("annotations.*.id"), {}),
    ("no box", drop("annotations.*.bbox"), {}),
    ("an empty box", put("annotations.*.bbox", []), {"entries": MASKS}),
    ("names of points nowhere", drop("categories.0.keypoints"), {"entries": ("points",)}),
    # K10: paths of Windows
    ("backslashes", put("images.*.file_name", lambda name: f"a b\\{name}"), {}),
    ("a dot before", put("images.*.file_name", lambda name: f".\\{name}"), {}),
]  # fmt: skip


@pytest.mark.parametrize("name, change, options", AS_IT_IS, ids=[row[0] for row in AS_IT_IS])
def test_coco_is_read_for_what_it_means(coco, name, change, options):
    data = coco(change or (lambda content: None), **options)
    assert data.label_names == ("cat", "dog")
    taken = take_all(data)
    np.testing.assert_array_equal(taken["boxes_mask"], [[1], [1]])
    np.testing.assert_allclose(taken["boxes"][:, 0], [BOX, BOX], atol=1e-6)
    np.testing.assert_array_equal(taken["box_labels"], [[0], [0]])
    np.testing.assert_array_equal(taken["box_areas"], [[150], [150]])
    np.testing.assert_array_equal(taken["original_size"], [SIZE, SIZE])
    for name, inside in (("instance_masks", np.ix_(range(10, 20), range(5, 25))),):
        if name in taken:
            drawn = np.zeros(SIZE, np.uint8)
            drawn[inside] = 255
            np.testing.assert_array_equal(taken[name][1, 0], drawn)
    if "points" in taken:
        np.testing.assert_allclose(taken["points"][0, 0, 0], [12 / 40, 6 / 60], atol=1e-6)


NOTED = [
    ("path of a machine", put("images.*.file_name", lambda n: f"C:\\photos\\a b\\{n}"), "is taken"),
    ("absolute path", put("images.*.file_name", lambda n: f"/data/up/7/{n}"), "is taken for it"),
    ("address", put("images.*.file_name", lambda n: f"a%20b/{n}"), "is taken for it"),
    ("folder too many", put("images.*.file_name", lambda n: f"images/{n}"), "is taken for it"),
    ("Roboflow's root", both(put("categories", lambda c: [ROOT, *c]),
                             put("categories.1.supercategory", "animals"),
                             put("categories.2.supercategory", "animals")), "'animals'"),
    ("a root with a class's name", both(put("categories", lambda c: [{**ROOT, "name": "cat"}, *c]),
                                        put("categories.1.supercategory", "cat")), "'cat'"),
    ("shares", put("annotations.*.bbox", [0.1, 0.2, 0.5, 0.5]), "smaller than a pixel"),
]  # fmt: skip


@pytest.mark.parametrize("name, change, message", NOTED, ids=[row[0] for row in NOTED])
def test_what_is_guessed_of_coco_is_said(coco, name, change, message):
    data = coco(change)
    with pytest.warns(UserWarning, match=f"guessed or passed over.*{message}"):
        taken = take_all(data)
    assert data.label_names == ("cat", "dog")
    np.testing.assert_array_equal(taken["box_labels"], [[0], [0]])


def test_two_names_are_not_guessed_to_be_one_file(coco):
    names = both(
        put("images.0.file_name", "C:\\a\\1.png"), put("images.1.file_name", "C:\\b\\1.png")
    )
    with pytest.raises(DataError, match=r"was already taken for .*a.*1\.png"):
        coco(names).size("train")


@pytest.mark.parametrize("aspect", [(20, 20), (10, 40)])
def test_crops_of_every_format_are_the_same_pictures(coco, voc, yolo, aspect):
    """The window is the box, widened; what it shows does not depend on who wrote it down."""
    options = {"crops": True, "entries": ("label",), "image_size": aspect, "margin": 1.5}
    for name in ("0", "1"):  # the same pictures
        save(Path(coco().images) / f"{int(name) + 1}.png", seed=int(name))
    sets = [coco(**options), voc(stems=("0", "1"), **options)]
    sets.append(yolo(LINE, LINE, layout=LAYOUTS[1], **options))
    first, *others = [take_all(data) for data in sets]
    assert set(first) == {"image", "label"}
    assert first["image"].shape == (2, *aspect, 3)
    for other in others:
        for name, array in first.items():
            np.testing.assert_array_equal(other[name], array)


def test_crowds_lie_after_the_objects(coco):
    def change(content):
        one, other = content["annotations"]
        other |= {"image_id": 1, "iscrowd": "1", "category_id": 9}
        content["annotations"] = [other, one]

    taken = take_all(coco(change, entries=("instance_masks", "segmentation")))
    np.testing.assert_array_equal(taken["boxes_mask"], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(taken["boxes_ignored"], [[0, 1], [0, 0]])
    np.testing.assert_array_equal(taken["boxes_crowd"], [[0, 1], [0, 0]])
    np.testing.assert_array_equal(taken["box_labels"], [[0, 1], [0, 0]])
    np.testing.assert_array_equal(taken["box_areas"], [[150, 150], [0, 0]])
    assert taken["instance_masks"][0, 1].any()
    assert set(np.unique(taken["segmentation"])) == {0, 1}  # the object lies on the crowd


# change, message, objects left with "skip", with "clip"
BROKEN = [
    ("iscrowd 2", put("annotations.0.iscrowd", 2), "iscrowd is 2", 1, 1),
    ("NaN", put("annotations.0.bbox.0", float("nan")), "bbox is", 1, 1),
    ("infinite", put("annotations.0.bbox.0", 10**400), "bbox is", 1, 1),
    ("true", put("annotations.0.bbox.2", True), "bbox is", 1, 1),
    ("null", put("annotations.0.bbox", [None] * 4), "bbox is", 1, 1),
    ("half an id", put("annotations.0.image_id", 1.5), "has image_id 1.5", 1, 1),
    ("no id", put("annotations.0.category_id", None), "category_id is None", 1, 1),
    ("a size of letters", put("images.0.height", "tall"), "size of 'tall'", 2, 2),
    ("a size of NaN", put("images.0.width", float("nan")), "size of 'nan'", 2, 2),
    ("over the edge", put("annotations.0.bbox", [-3, 10, 20, 10]), "outside the image", 2, 2),
    ("half outside", put("annotations.0.bbox", [50, 10, 20, 10]), "outside the image", 1, 2),
    ("far over the edge", put("annotations.0.bbox", [-10, 10, 40, 10]), "outside the image", 1, 2),
    ("outside", put("annotations.0.bbox", [70, 10, 20, 10]), "outside the image", 1, 1),
    ("backwards", put("annotations.0.bbox", [25, 20, -20, -10]), "is empty", 1, 2),
    ("empty", put("annotations.0.bbox", [25, 20, 0, 10]), "is empty", 1, 1),
    ("a part of two points", put("annotations.0.segmentation", lambda s: [*s, [7, 7, 9, 9]]),
     r"\[7, 7, 9, 9\]; it must be x, y of at least 3 points", 2, 2),
    ("a part far outside", put("annotations.0.segmentation", lambda s: [*s, [0, 0, 9, 9, 0, 1e9]]),
     "far outside", 2, 2),
    ("a part of NaN", put("annotations.0.segmentation", lambda s: [*s, [0, 0, 9, 9, 0, None]]),
     "at least 3 points", 2, 2),
    ("no part", put("annotations.0.segmentation", [[7, 7, 9, 9]]), "at least 3 points", 1, 1),
    ("lying run lengths", put("annotations.0.segmentation", {"size": [10**6] * 2, "counts": [7]}),
     r"size \[1000000, 1000000\]", 1, 1),
    ("an image with a number for a name", put("images.0.file_name", 3), r"images\[0\]", 1, 1),
    ("a name with a zero byte", put("images.0.file_name", "a\0b"), "no such image", 1, 1),
    ("a name too long", put("images.0.file_name", "a" * 5000), "no such image", 1, 1),
    ("a lone surrogate", put("images.0.file_name", "\ud800.png"), "no such image", 1, 1),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize(
    "name, change, message, skip, clip", BROKEN, ids=[row[0] for row in BROKEN]
)
def test_the_least_that_is_faulty_is_left_out(coco, name, change, message, skip, clip):
    with pytest.raises(DataError, match=message):
        take_all(coco(change, entries=MASKS))
    for invalid, left in (("skip", skip), ("clip", clip)):
        taken = take_all(coco(change, entries=MASKS, invalid=invalid))
        assert taken["boxes_mask"].sum() == left
        boxes = taken["boxes"][taken["boxes_mask"] > 0]
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert taken["instance_masks"][taken["boxes_mask"] > 0].any(axis=(1, 2)).all()
    np.testing.assert_allclose(taken["boxes"][-1, 0], BOX, atol=1e-6)


def test_faults_are_counted_by_kind(coco):
    change = both(
        put("annotations.0.bbox", [-3, 10, 20, 10]),
        put("annotations", lambda a: [*a, {**a[0], "bbox": [1, 1, 0, 1]}, {**a[0], "bbox": "x"}]),
    )
    said = (
        r"2 labels break a rule and are left out; the first: .* bbox is 'x'.*; of these: "
        r"box of no numbers \(1\), empty box \(1\)\. 1 labels break a rule and are mended; the "
        "first: .* it is cut"
    )
    with pytest.warns(UserWarning, match=said):
        take_all(coco(change, invalid="skip"))


@pytest.mark.parametrize("invalid", ["error", "skip", "clip"])
def test_notes_are_never_refused_and_said_at_each_power_of_ten(invalid):
    faults = Faults("here", invalid)
    faults.note("before", kind="a")
    with pytest.warns(UserWarning, match="here: guessed or passed over: 1; the first: before"):
        faults.warn()
    faults.warn()  # not twice
    faults.say_at_once = True
    with pytest.warns(UserWarning, match=r"of these: a \(1\), b") as said:
        np.vectorize(partial(faults.note, kind="b"), otypes=[object])(["later"] * 150)
    assert [str(entry.message).split()[5].strip(";") for entry in said] == ["10", "100"]
    assert (faults.count, faults.mended) == (0, 0)


@pytest.mark.parametrize("entries", [("boxes",), ("instance_masks", "segmentation", "points")])
@pytest.mark.parametrize("turn, said", [(3, "mirrors"), (6, "its EXIF orientation applied")])
def test_pictures_turned_by_their_tag(coco, tmp_path, entries, turn, said):
    """By 180 degrees nothing tells what the labels were drawn on, which is noted; by 90 degrees the
    declared size does, and such labels are refused where they do not fit."""
    exif = Image.Exif()
    exif[274] = turn
    save(tmp_path / "images" / "1.png", exif=exif)
    if turn == 3:
        with pytest.warns(UserWarning, match=said):
            take_all(coco(entries=entries))
        return
    with pytest.raises(DataError, match=said):
        take_all(coco(entries=entries))
    upright = both(put("images.0.height", WIDTH), put("images.0.width", HEIGHT))
    taken = take_all(coco(upright, entries=("boxes",)))  # so its labels are of the upright picture
    np.testing.assert_allclose(taken["boxes"][0, 0], [10 / 60, 5 / 40, 20 / 60, 25 / 40], atol=1e-6)


# --- Pascal VOC ---


def voc_xml(*, box=(6, 11, 25, 20), size=(HEIGHT, WIDTH), name="cat", more="", head="") -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    places = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
    sizes = "" if size is None else f"<height>{size[0]}</height><width>{size[1]}</width>"
    return (
        f"<annotation>{head}<size>{sizes}</size><object><name>{name}</name>{more}"
        f"<bndbox>{places}</bndbox></object></annotation>"
    )


@pytest.fixture
def voc(tmp_path):
    """A function that writes the annotation of two images, and their list, and gives the set."""

    def make(text=None, *, stems=("a", "b"), listed=None, encoding="utf-8", **options) -> Voc:
        data = text if isinstance(text, bytes) else (text or voc_xml()).encode(encoding)
        for i, stem in enumerate(stems):
            save(tmp_path / "JPEGImages" / f"{stem}.png", seed=i)
            (tmp_path / "Annotations").mkdir(exist_ok=True)
            (tmp_path / "Annotations" / f"{stem}.xml").write_bytes(
                data if i == 0 else voc_xml().encode()
            )
        if listed is not None:
            sets = tmp_path / "ImageSets" / "Main"
            sets.mkdir(parents=True, exist_ok=True)
            (sets / "train.txt").write_bytes(
                listed if isinstance(listed, bytes) else listed.encode()
            )
        options = {"names": ("cat", "dog"), "image_size": SIZE, "eval_fraction": 0.0, **options}
        return Voc(str(tmp_path), eval="", **options)

    return make


XML = '<?xml version="1.0" encoding="{}"?>'
VOC_AS_IT_IS = [
    ("a mark", {"encoding": "utf-8-sig"}),
    ("UTF-16", {"text": XML.format("UTF-16") + voc_xml(), "encoding": "utf-16"}),
    ("an encoding that the parser does not know", {
        "text": XML.format("GBK") + voc_xml(head="<folder>图</folder>"), "encoding": "gbk"}),
    ("blanks before the declaration", {"text": "\r\n " + XML.format("UTF-8") + voc_xml()}),
    ("U+2028 in the text", {"text": voc_xml(head="<folder>a\u2028b</folder>")}),
    ("floats", {"text": voc_xml(box=("6.0", "1.1e1", " 25.0 ", "20"))}),
    ("no size", {"text": voc_xml(size=None)}),
    ("size 0", {"text": voc_xml(size=(0, 0))}),
    ("size -1", {"text": voc_xml(size=(-1, -1))}),
    ("sizes as floats", {"text": voc_xml(size=("40.0", "60.0"))}),
    ("paths of another machine", {"text": voc_xml(
        head="<filename>a</filename><path>C:\\photos\\a.png</path>")}),
    ("blanks around a name", {"text": voc_xml(name="\n cat ")}),
    *[(f"difficult {no!r}", {"text": voc_xml(more=f"<difficult>{no}</difficult>")})
      for no in ("0", "0.0", "false", "")],
    # lists
    ("names", {"listed": "a\nb\n"}),
    ("endings", {"listed": "a.png\nb.png"}),
    ("folders", {"listed": "JPEGImages/a.png\nVOC/JPEGImages/b.png"}),
    ("paths of Windows", {"listed": "C:\\VOC\\JPEGImages\\a.png\r\n.\\b\r\n"}),
    ("flags", {"listed": "a  1\nb -1\n"}),
    ("old ends of lines, a mark", {"listed": b"\xef\xbb\xbfa\rb\r"}),
    ("UTF-16 list", {"listed": "a\nb\n".encode("utf-16")}),
    ("blanks in names", {"listed": "a cat 1\na cat 2", "stems": ("a cat 1", "a cat 2")}),
    ("blanks and flags", {"listed": "a cat 1\na cat -1", "stems": ("a cat 1", "a cat")}),
    ("dots in names", {"listed": "a.b\nc.d.png", "stems": ("a.b", "c.d")}),
    ("U+2028 and U+0085 in names", {"listed": "a\u2028b\nc\x85d", "stems": ("a\u2028b", "c\x85d")}),
    ("decomposed letters", {"listed": "e\u0301\nb", "stems": ("\u00e9", "b")}),
]  # fmt: skip


@pytest.mark.parametrize("name, options", VOC_AS_IT_IS, ids=[row[0] for row in VOC_AS_IT_IS])
def test_voc_is_read_for_what_it_means(voc, name, options):
    data = voc(**options)
    taken = take_all(data)
    np.testing.assert_array_equal(taken["boxes_mask"], [[1], [1]])
    np.testing.assert_allclose(taken["boxes"][:, 0], [BOX, BOX], atol=1e-6)
    np.testing.assert_array_equal(taken["box_labels"], [[0], [0]])
    np.testing.assert_allclose(taken["box_areas"], [[200], [200]], rtol=1e-6)


@pytest.mark.parametrize("difficult", [False, True])
@pytest.mark.parametrize("yes", ["1", "1.0", "true"])
def test_difficult_objects_are_ignored_rows(voc, yes, difficult):
    text = voc_xml(more=f"<difficult>{yes}</difficult>")
    taken = take_all(voc(text, difficult=difficult))
    np.testing.assert_array_equal(taken["boxes_mask"], [[difficult], [1]])
    np.testing.assert_array_equal(taken["boxes_ignored"], [[not difficult], [0]])
    np.testing.assert_allclose(taken["boxes"][0, 0], BOX, atol=1e-6)
    assert not taken["boxes_crowd"].any()


BOMB = "".join(
    f"<!ENTITY {new} '{f'&{old};' * 10}'>" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMB = f"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>{BOMB}]>"
VOC_BROKEN = [
    ("NaN", voc_xml(box=("nan", 11, 25, 20)), "not finite", 1, 1),
    ("infinite", voc_xml(box=("1" + "0" * 400, 11, 25, 20)), "not finite", 1, 1),
    ("no numbers", voc_xml(box=("", 11, 25, 20)), "must be four numbers", 1, 1),
    ("backwards", voc_xml(box=(25, 20, 6, 11)), "is empty", 1, 2),
    ("over the edge", voc_xml(box=(40, 11, 63, 20)), "outside the image", 2, 2),
    ("half outside", voc_xml(box=(40, 11, 90, 20)), "outside the image", 1, 2),
    ("a size of letters", voc_xml(size=("tall", 60)), "its size is", 2, 2),
    ("another size", voc_xml(size=(41, 60)), "annotation says", 1, 1),
    ("difficult 2", voc_xml(more="<difficult>2</difficult>"), "difficult='2'", 2, 2),
    ("an unknown class", voc_xml(name="cot"), "did you mean 'cat'", 1, 1),
    ("cut short", voc_xml()[:-30], "cannot be read as XML", 1, 1),
    ("no text", b"\xff\xfe\x00", "cannot be read as XML", 1, 1),
    ("an unknown encoding", XML.format("klingon") + voc_xml(), "cannot be read as XML", 1, 1),
    ("a bomb", BOMB + voc_xml(more="&i;"), "cannot be read as XML", 1, 1),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize(
    "name, text, message, skip, clip", VOC_BROKEN, ids=[row[0] for row in VOC_BROKEN]
)
def test_the_least_that_is_faulty_of_voc_is_left_out(voc, name, text, message, skip, clip):
    with pytest.raises(DataError, match=message):
        take_all(voc(text))
    for invalid, left in (("skip", skip), ("clip", clip)):
        assert take_all(voc(text, invalid=invalid))["boxes_mask"].sum() == left


def test_an_image_listed_twice_is_taken_once(voc):
    with pytest.warns(UserWarning, match="'a' stands in line 1, too"):
        assert voc(listed="a\nb\na.png\n").size("train") == 2
    with pytest.raises(DataError, match="there is no image 'my photo'"):
        voc(listed="a\nmy photo 1\n").size("train")


# --- YOLO ---

LINE = "0 0.25 0.375 0.333333 0.25"
POLYGON = "0 0.083333 0.25 0.416667 0.25 0.416667 0.5 0.083333 0.5"
LAYOUTS = ("images/{0} labels/{0}", "{0}/images {0}/labels")


@pytest.fixture
def yolo(tmp_path):
    def make(*texts, layout="images labels", names=("cat", "dog"), **options) -> Yolo:
        images, labels = layout.format("train").split()
        for i, text in enumerate(texts):
            save(tmp_path / images / f"{i}.png", seed=i)
            if text is not None:
                (tmp_path / labels).mkdir(parents=True, exist_ok=True)
                (tmp_path / labels / f"{i}.txt").write_bytes(text.encode())
        options = {"image_size": SIZE, "eval_fraction": 0.0, **options}
        return Yolo(str(tmp_path), names, **options)

    return make


@pytest.mark.parametrize("layout", ["images labels", *LAYOUTS])
@pytest.mark.parametrize("line", [LINE, POLYGON, f"\ufeff{LINE}\r\n\r\n", LINE.replace(" ", "\t")])
def test_yolo_lines_are_boxes_in_shares(yolo, layout, line):
    taken = take_all(yolo(line, f"{line}\n{LINE.replace('0 ', '1.0 ', 1)}\n", layout=layout))
    np.testing.assert_array_equal(taken["boxes_mask"], [[1, 0], [1, 1]])
    np.testing.assert_allclose(taken["boxes"][1], [BOX, BOX], atol=1e-5)
    np.testing.assert_array_equal(taken["box_labels"], [[0, 0], [0, 1]])
    np.testing.assert_allclose(taken["box_areas"], [[200, 0], [200, 200]], rtol=1e-4)


def test_yolo_labels_may_end_in_capitals(yolo, tmp_path):
    data = yolo(LINE)
    (tmp_path / "labels" / "0.txt").rename(tmp_path / "labels" / "0.TXT")
    np.testing.assert_allclose(take_all(data)["boxes"], [[BOX]], atol=1e-5)


def test_yolo_polygons_are_masks(yolo):
    taken = take_all(yolo(POLYGON, entries=("instance_masks", "segmentation")))
    drawn = np.zeros(SIZE, bool)
    drawn[10:20, 5:25] = True
    np.testing.assert_array_equal(taken["instance_masks"][0, 0] > 0, drawn)
    np.testing.assert_array_equal(taken["segmentation"][0], drawn)
    with pytest.raises(DataError, match="at least 3 points"):
        take_all(yolo(LINE, entries=("instance_masks",)))


def test_yolo_splits_and_images_without_labels(yolo, tmp_path):
    for split in ("val", "test"):
        save(tmp_path / "images" / split / "9.png")
        (tmp_path / "labels" / split).mkdir(parents=True)
    data = yolo(LINE, LINE, layout=LAYOUTS[0])
    with pytest.warns(UserWarning, match=r"9\.png: has no labels in"):
        assert [data.size(split) for split in ("train", "eval", "test")] == [2, 1, 1]
    assert not take_all(data, "eval")["boxes_mask"].any()


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize(
    "line, message, skip, clip",
    [
        ("2 0.25 0.375 0.3 0.25", r"class in \[0, 2\)", 1, 1),
        ("cat 0.25 0.375 0.3 0.25", r"class in \[0, 2\)", 1, 1),
        ("0 0.25 0.375 0.3", "3 points or more", 1, 1),
        ("0 0.25 0.375 0.3 0.25 0.9", "3 points or more", 1, 1),
        ("0 0.25 0.375 nan 0.25", "3 points or more", 1, 1),
        ("0 0.25 0.375", "3 points or more", 1, 1),
        ("0 15 15 20 10", "outside the image", 1, 1),
        ("0 0.05 0.375 0.2 0.25", "outside the image", 2, 2),
        ("0 0.25 0.375 0 0.25", "is empty", 1, 1),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", "no area", 1, 1),
    ],
)
def test_yolo_lines_that_break_a_rule(yolo, line, message, skip, clip):
    with pytest.raises(DataError, match=message) as error:
        take_all(yolo(LINE, line))
    assert "1.txt, line 1" in str(error.value)
    for invalid, left in (("skip", skip), ("clip", clip)):
        assert take_all(yolo(LINE, line, invalid=invalid))["boxes_mask"].sum() == left


def test_yolo_files_that_are_missing(yolo, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "none.txt").write_text(LINE)
    with pytest.raises(DataError, match=r"none\.txt: there is no such image"):
        yolo(LINE).size("train")
    with pytest.raises(DataError, match="no such folder"):
        Yolo(str(tmp_path / "nowhere")).size("train")
    with pytest.raises(DataError, match=r"classes\.txt.*what the classes are called"):
        yolo(LINE, names=()).size("train")


@pytest.mark.parametrize(
    "file, text, names",
    [
        ("classes.txt", "\ufeffcat\r\nmy dog\r\n\r\n", ("cat", "my dog")),
        ("obj.names", "cat\ndog", ("cat", "dog")),
        ("data.yaml", "train: x\nnc: 2\nnames: ['cat', \"my, dog\"]  # two\n", ("cat", "my, dog")),
        ("data.yaml", "names:\n- cat\n- my dog # a comment\nnc: 2\n", ("cat", "my dog")),
        ("data.yaml", "names:\n  0: cat\n  1: 'dog'\n\ntrain: x\n", ("cat", "dog")),
        ("data.yaml", "names: {0: cat, 1: dog}\n", ("cat", "dog")),
        ("data.yaml", "names: [\n  cat,\n  dog,\n]\n", ("cat", "dog")),
        ("data.yaml", "names: [traffic-light, 007]\n", ("traffic-light", "007")),
        ("data.yaml", "names:\n  1: cat\n  0: dog\n", None),
        ("data.yaml", "nc: 3\nnames: [a, b]\n", None),
        ("data.yaml", "names: !!python/tuple [a]\n", None),
        ("data.yaml", "train: x\n", None),
    ],
)
def test_names_of_classes(tmp_path, file, text, names):
    (tmp_path / file).write_bytes(text.encode())
    if names is None:
        with pytest.raises(DataError, match=r"set names="):
            read_class_names(tmp_path)
    else:
        assert read_class_names(tmp_path) == names
