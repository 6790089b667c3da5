"""Windows of pictures drawn while they are decoded: against Pillow, the distribution that the paper
says, and that each visit of a run has its own, whatever stands between the files and the run."""

import dataclasses
import io
import json
import math
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.commands import _main
from jaxcnn.core import hosts
from jaxcnn.data.algebra import Balanced, Concat, Fold, HeldOut, Mapped, Mixed, Take
from jaxcnn.data.crops import cropping
from jaxcnn.data.dataset import (
    batch_indices,
    draws_of_steps,
    is_drawn,
    take_drawn,
    training_batch,
)
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.files.coco import Coco
from jaxcnn.data.files.images import decode_image
from jaxcnn.data.files.mask_folder import MaskFolder
from jaxcnn.data.files.shards import Shards
from jaxcnn.data.memory import MemorySource
from jaxcnn.errors import ConfigError, Preempted
from jaxcnn.runs.evaluation import open_checked
from jaxcnn.runs.feed import batches
from jaxcnn.runs.open import open as open_run
from tests.tiny import fit, stop_at, tiny

AREA = (0.2, 0.6)
CLASSES = ("ant", "bee", "cat")
SIZE = (8, 8)


def smooth(height: int, width: int, shift: int = 0) -> np.ndarray:
    """uint8 [h, w, 3]: red tells the row, green the column."""
    y, x = np.mgrid[:height, :width]
    red, green = 255 * y / max(1, height - 1), 255 * x / max(1, width - 1)
    return np.stack([red, green, np.full_like(red, shift)], axis=-1).astype(np.uint8)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """Twelve photographs, of which the first class has more than the last."""
    for i in range(12):
        folder = tmp_path / "photos" / CLASSES[int("000001111222"[i])]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(30 + i, 41 - i, 20 * i)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def folder(photos, **fields) -> Folder:
    return Folder(str(photos), SIZE, **{"crop_area": AREA, "eval_fraction": 0.2, **fields})


# ---- one window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(300, 400), (40, 40), (7, 90), (1, 1), (1, 50)])
@pytest.mark.parametrize("area", [AREA, (0.001, 0.002), (1.0, 1.0)])
def test_a_window_lies_in_the_picture_and_follows_of_the_draw_alone(height, width, area):
    for draw in range(50):
        window = cropping(draw, area=area, aspect=(3 / 4, 4 / 3))
        top, left, bottom, right = window((height, width))
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        assert window((height, width)) == (top, left, bottom, right)


def test_areas_aspects_and_places_are_those_of_the_paper():
    """Uniform shares of the area, log-uniform aspects, uniform places: where none sticks out, each
    third of the range has a third of 3,000 windows (to 4 of its deviations, 26)."""
    found = [
        cropping(draw, area=(0.1, 0.4), aspect=(3 / 4, 4 / 3))((900, 900)) for draw in range(3000)
    ]
    top, left, bottom, right = np.array(found).T
    tall, wide = bottom - top, right - left
    shares = {
        "area": (tall * wide / 900**2 - 0.1) / 0.3,
        "aspect": (np.log(wide / tall) - math.log(3 / 4)) / (2 * math.log(4 / 3)),
        "top": top / (900 - tall),
        "left": left / (900 - wide),
    }
    for name, share in shares.items():
        assert share.min() >= -0.01, name  # sides are rounded
        assert share.max() <= 1.01, name
        counts = np.histogram(share, bins=3, range=(-0.01, 1.01))[0]
        assert np.abs(counts - 1000).max() < 104, (name, counts)
    names = list(shares)
    related = np.corrcoef([shares[name] for name in names]) - np.eye(4)
    assert np.abs(related).max() < 0.08  # 4 of 1 / sqrt(3000)


def test_what_never_fits_is_the_largest_in_the_middle():
    window = cropping(0, area=(0.9, 1.0), aspect=(3 / 4, 4 / 3))
    assert window((30, 400)) == (0, 180, 30, 220)  # 4:3
    assert window((400, 30)) == (180, 0, 220, 30)  # 3:4
    # and what fits at times is drawn again: 2 of 5 do not fit, all ten hardly ever
    windows = [
        cropping(draw, area=(0.5, 1.0), aspect=(3 / 4, 4 / 3))((300, 400)) for draw in range(300)
    ]
    assert len(set(windows)) > 290


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_the_window_is_that_of_the_upright_picture(form, turn):
    """Of a file that says how it is to be turned: by Pillow, in full, then the window."""
    from PIL import ImageOps

    if form == "WEBP":
        pytest.importorskip("PIL._webp")
    image, file = Image.fromarray(smooth(60, 80)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turn
    lossless = {"lossless": True} if form == "WEBP" else {}
    image.save(file, form, exif=exif, **lossless, **({"quality": 100} if form == "JPEG" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))).convert("RGB")
    for draw in range(5):
        window = cropping(draw, area=AREA, aspect=(3 / 4, 4 / 3))
        ours = decode_image(
            file.getvalue(), name="x", size=(20, 24), channels=3, window=window
        ).astype(int)
        top, left, bottom, right = window((upright.height, upright.width))
        box = (left, top, right, bottom)
        theirs = np.asarray(upright.resize((24, 20), Image.Resampling.BILINEAR, box=box), int)
        np.testing.assert_array_equal(ours, theirs)


def test_a_large_jpeg_is_decoded_in_part_and_looks_the_same():
    """A window of 12 megapixels at 64 x 64: by fewer frequencies, within some levels of the whole
    decoded picture's."""
    file = io.BytesIO()
    Image.fromarray(smooth(1500, 2000)).save(file, "JPEG", quality=95)
    window = cropping(4, area=(0.3, 0.9), aspect=(3 / 4, 4 / 3))
    ours = decode_image(file.getvalue(), name="x", size=(64, 64), channels=3, window=window)
    top, left, bottom, right = window((1500, 2000))
    whole = Image.open(io.BytesIO(file.getvalue()))
    box = (left, top, right, bottom)
    theirs = np.asarray(whole.resize((64, 64), Image.Resampling.BILINEAR, box=box), int)
    assert 0 < np.abs(ours.astype(int) - theirs).max() <= 3
    slope = (theirs[-1, 0, 0] - theirs[0, 0, 0]) / 63
    assert slope > 0.5  # a window that lies one row off would be seen


def test_a_map_of_classes_is_cut_where_its_picture_is(tmp_path):
    for i in range(3):
        image = smooth(48, 64)
        mask = (image[..., 0] // 64).astype(np.uint8)  # 0 to 3, from top to bottom
        for name, pixels in (("images", image), ("masks", mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    data = MaskFolder(
        images=str(tmp_path / "images"),
        masks=str(tmp_path / "masks"),
        image_size=(16, 16),
        eval_fraction=0.0,
        crop_area=AREA,
    )
    source = data.open("train")
    seen = take_drawn(source, np.zeros(20, int), np.arange(20, dtype=np.uint64))
    off = np.abs(seen["segmentation"] - seen["image"][..., 0] // 64)
    assert off.max() == 1
    assert np.mean(off > 0) < 0.12
    assert len({x.tobytes() for x in seen["segmentation"]}) > 15


def test_a_map_that_is_painted_of_shapes_is_cut_where_its_picture_is(tmp_path):
    """The lower half of a picture, by a polygon."""
    height = 48
    Image.fromarray(smooth(height, 64)).save(tmp_path / "a.png")
    half = [0, height / 2, 64, height / 2, 64, height, 0, height]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": 64}],
        "categories": [{"id": 1, "name": "below"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [0, height / 2, 64, height / 2],
                "area": 32 * height,
                "iscrowd": 0,
                "segmentation": [half],
            }
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = Coco(
        str(tmp_path / "a.json"),
        images=str(tmp_path),
        entries=("segmentation",),
        image_size=(16, 16),
        eval_path=str(tmp_path / "a.json"),
        eval_images=str(tmp_path),
        crop_area=AREA,
    )
    rows, draws = np.zeros(20, int), np.arange(20, dtype=np.uint64)
    seen = take_drawn(data.open("train"), rows, draws)
    off = seen["segmentation"] != (seen["image"][..., 0] > 127)
    assert np.mean(off) < 0.06  # at the edge alone
    assert 0 < np.mean(seen["segmentation"] > 0) < 1
    assert len({x.tobytes() for x in seen["segmentation"]}) > 5  # it lies in many places


# ---- in runs -------------------------------------------------------------------------------------


def seen(
    source, seed: int | tuple[int, ...] = 0, *, first=0, end=4, batch_size=4, size=1
) -> np.ndarray:
    """The pictures of some steps as a run gets them, [steps, batch, ...]."""
    steps = [(at, at + size) for at in range(first, end, size)]
    found = [
        np.asarray(batch["image"])
        for _, batch in batches(source, steps, seed=seed, batch_size=batch_size)
    ]
    return np.stack(found) if size == 1 else np.concatenate(found)


def test_a_visit_is_a_function_of_seed_step_and_row(photos):
    source = folder(photos).open("train")
    whole = seen(source, end=8)
    np.testing.assert_array_equal(whole[3:6], seen(source, first=3, end=6))
    np.testing.assert_array_equal(whole, seen(source, end=8, size=4))
    for threads in (1, 8):
        np.testing.assert_array_equal(whole, seen(source.with_workers(threads), end=8))
    np.testing.assert_array_equal(whole[2], training_batch(source, 0, 2, batch_size=4)["image"])
    assert not np.array_equal(whole, seen(source, seed=1, end=8))
    # a row is seen in each of several epochs, each time otherwise
    size = len(source)
    rows = np.concatenate([batch_indices(0, s, size=size, batch_size=4) for s in range(8)])
    visits = whole.reshape(-1, *SIZE, 3)[rows == 5]
    assert len(visits) >= 32 // size
    assert len({x.tobytes() for x in visits}) == len(visits)


def test_replicas_have_their_own(photos):
    source = folder(photos).open("train")
    together = seen(source, seed=(3, 4))  # [steps, replicas, batch, ...]
    for place, seed in enumerate((3, 4)):
        np.testing.assert_array_equal(together[:, place], seen(source, seed=seed))


def test_hosts_draw_what_one_host_draws(photos, monkeypatch):
    source = folder(photos).open("train")
    alone, parts = seen(source), []
    monkeypatch.setattr(hosts, "count", lambda: 2)
    for host in (0, 1):
        monkeypatch.setattr(hosts, "index", lambda host=host: host)
        parts.append(seen(source))
    np.testing.assert_array_equal(alone, np.concatenate(parts, axis=1))


def test_draws_differ_in_all_rows_of_all_steps_and_seeds():
    draws = [draws_of_steps(seed, 0, 100, batch_size=7) for seed in (0, 1, -1, 2**40)]
    assert draws[0].dtype == np.uint64
    assert draws[0].shape == (100, 7)
    assert len(np.unique(draws)) == 4 * 700
    np.testing.assert_array_equal(draws[0][40:60], draws_of_steps(0, 40, 60, batch_size=7))


def test_evaluation_sees_whole_pictures(photos):
    data, plain = folder(photos), folder(photos, crop_area=None)
    assert isinstance(data.open("eval"), MemorySource)
    assert not is_drawn(data.open("eval"))
    for split in ("train", "eval"):
        for name in ("image", "label"):
            ours, theirs = (d.open(split).take(np.arange(2))[name] for d in (data, plain))
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    held = HeldOut(folder(photos, eval_fraction=0.0), 0.3)
    bare = HeldOut(folder(photos, eval_fraction=0.0, crop_area=None), 0.3)
    np.testing.assert_array_equal(
        held.open("eval").take(np.arange(2))["image"],
        np.asarray(bare.open("eval").take(np.arange(2))["image"]),
    )


def darker(batch):
    return {**batch, "image": batch["image"] // 2}


@pytest.mark.parametrize(
    "around",
    [
        lambda data: Take(data, 6),
        lambda data: Fold(data, 0, 3),
        lambda data: HeldOut(data, 0.3),
        lambda data: Concat(data, data),
        lambda data: Mixed((data, data), (0.5, 0.5)),
        Balanced,
        lambda data: Mapped(data, darker),
    ],
    ids=["Take", "Fold", "HeldOut", "Concat", "Mixed", "Balanced", "Mapped"],
)
def test_draws_reach_the_files_through_all_that_stands_between(photos, around):
    data = folder(photos, eval_fraction=0.0)
    e = tiny(data=around(data))
    source, plain = (
        open_checked(e, "train"),
        around(folder(photos, eval_fraction=0.0, crop_area=None)).open("train"),
    )
    assert is_drawn(source)
    assert not is_drawn(plain)
    rows = np.tile(np.arange(3) * (len(source) - 1) // 2, 8)  # of all its parts
    draws = np.arange(24, dtype=np.uint64)
    taken = np.asarray(take_drawn(source, rows.reshape(4, 6), draws.reshape(4, 6))["image"])
    assert taken.shape == (4, 6, *SIZE, 3)
    taken = taken.reshape(24, -1)
    assert len(np.unique(taken, axis=0)) == 24  # each visit is another
    again = np.asarray(take_drawn(source, rows[::-1], draws[::-1])["image"]).reshape(24, -1)
    np.testing.assert_array_equal(taken, again[::-1])
    singles = [take_drawn(source, rows[[i]], draws[[i]])["image"] for i in range(0, len(rows), 5)]
    np.testing.assert_array_equal(taken[::5], np.concatenate(singles).reshape(5, -1))
    still = np.asarray(source.take(rows)["image"]).reshape(24, -1)
    assert len(np.unique(still, axis=0)) in (2, 3)  # the two ends may be of one file


def run_of(photos, **fields):
    e = tiny(
        data=folder(photos, channels=1), augment=(), batch_size=4, steps=9, eval_every=3, ema=None
    )
    return dataclasses.replace(e, **fields)


def test_a_stopped_run_resumes_to_the_same_bits(photos, tmp_path):
    e = run_of(photos)
    fit(e, tmp_path / "whole")
    with pytest.raises(Preempted):
        fit(e, tmp_path / "stopped", observe=[stop_at(4)])
    fit(e, tmp_path / "stopped", resume=True)
    fit(dataclasses.replace(e, data=folder(photos, channels=1, crop_area=None)), tmp_path / "plain")
    whole, stopped, plain = (
        jax.tree.leaves(open_run(tmp_path / name).state.params)
        for name in ("whole", "stopped", "plain")
    )
    for ours, theirs in zip(whole, stopped, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not all(np.array_equal(a, b) for a, b in zip(whole, plain, strict=True))


def test_a_replica_is_its_solo_run(photos, tmp_path):
    e = run_of(photos)
    fit(e, tmp_path / "both", points=[{"seed": 0}, {"seed": 1}], way="unrolled")
    fit(dataclasses.replace(e, seed=1), tmp_path / "solo")
    ours = open_run(tmp_path / "both").replicas[1].history
    theirs = open_run(tmp_path / "solo").history
    losses = [[r["loss"] for r in h if r["kind"] == "train"] for h in (ours, theirs)]
    assert losses[0]
    assert np.allclose(*losses, rtol=1e-5)


def test_a_run_that_diverges_names_the_layer_by_the_batch_that_it_had(
    photos, tmp_path, monkeypatch
):
    """The batch of that step is taken once more, with its windows."""
    from jaxcnn.errors import DivergedError
    from jaxcnn.runs import stopping

    found = []
    monkeypatch.setattr(
        stopping, "first_non_finite", lambda e, state, batch: found.append(batch) or "there"
    )
    e = run_of(photos, clip_norm=None)
    e = dataclasses.replace(e, optimizer=partial(e.optimizer.func, learning_rate=1e30))
    with pytest.raises(DivergedError):
        fit(e, tmp_path / "run")
    step = open_run(tmp_path / "run").history[-1]["at"]
    want = training_batch(e.data.open("train"), e.seed, step, batch_size=4)["image"]
    np.testing.assert_array_equal(found[0]["image"], want)


def test_the_sheet_shows_the_first_batch(photos, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import dataclasses, jaxcnn\nfrom jaxcnn.data.files.class_folder import Folder\n"
        "from tests.tiny import tiny\n"
        f"experiment = tiny(data=Folder({str(photos)!r}, (8, 8), channels=1, crop_area={AREA}), "
        "augment=(), batch_size=4)\n"
    )
    sheets = []
    for name, override in (("a", []), ("b", ["data.crop_area=None"])):
        arguments = ["check", str(file), "--sheet", str(tmp_path / f"{name}.png"), *override]
        assert _main.main(arguments) == 0
        sheets.append((tmp_path / f"{name}.png").read_bytes())
    assert sheets[0] != sheets[1]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Folder("x", crop_area=(0.0, 1.0)), "crop_area is"),
        (lambda: Folder("x", crop_area=(0.5, 0.2)), "crop_area is"),
        (lambda: Folder("x", crop_area=(0.5, 1.5)), "crop_area is"),
        (lambda: Folder("x", crop_area=(0.5, math.nan)), "crop_area is"),
        (lambda: Shards("x", crop_area=(0.5, 1), crop_aspect=(2, 1)), "crop_aspect is"),
        (lambda: Shards("x", crop_area=(0.5, 1), crop_aspect=(0, 1)), "crop_aspect is"),
        (lambda: Folder("x", crop_aspect=(0.5, 1)), "no windows are drawn"),
        (lambda: Coco("x", crop_area=AREA, entries=("boxes",)), "boxes would have to move"),
        (
            lambda: Coco("x", crop_area=AREA, entries=("label",), crops=True),
            "objects .crops. would have to move",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
