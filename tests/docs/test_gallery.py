"""The gallery's scripts run, their pages are what docs/make_gallery.py makes of them, and their
numbers are those of loops and formulas.
"""

import functools
import itertools
import re

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.runs.code import module_of
from tests.conftest import ROOT

MAKER = module_of(ROOT / "docs" / "make_gallery.py")
PAGES = ROOT / "docs" / "gallery"
NUMBER = re.compile(r"\d[\d,]*\.?\d*")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """name -> (the names that the script defines, what it prints, the folder with its picture), run
    once, under JAX's own rules for shapes and dtypes, as a reader runs it.
    """
    pytest.importorskip("matplotlib", reason="the gallery is drawn by matplotlib")

    @functools.cache
    def run(name):
        folder = tmp_path_factory.mktemp(name)
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return (*MAKER.run(name, folder), folder)

    return run


def test_every_script_is_in_the_index():
    scripts = {p.stem for p in PAGES.glob("[a-z]*.py")}
    assert scripts == set(MAKER.ORDER) == {p.stem for p in PAGES.glob("[a-z]*.md")}
    assert {p.stem for p in MAKER.PICTURES.glob("*.png")} == scripts
    assert (PAGES / "README.md").read_text() == MAKER.index()


@pytest.mark.parametrize("name", MAKER.ORDER)
def test_the_page_is_what_the_script_gives(name, ran):
    """Text, code and counts to the letter; what is measured but for rounding."""
    _, printed, folder = ran(name)
    committed = (PAGES / f"{name}.md").read_text()
    told = re.search(r"```text\n(.*?)\n```", committed, re.S)[1]
    assert committed == MAKER.page(name, told), "run `python docs/make_gallery.py`"
    assert NUMBER.sub("#", told) == NUMBER.sub("#", printed.strip())
    for old, new in zip(*map(NUMBER.findall, (told, printed)), strict=True):
        expected, found = (float(n.replace(",", "")) for n in (old, new))
        measured = "." in old  # a count is exact
        assert found == (pytest.approx(expected, rel=0.03, abs=0.011) if measured else expected)
    kept = MAKER.PICTURES / f"{name}.png"
    assert kept.stat().st_size < 60_000
    with Image.open(kept) as old, Image.open(folder / f"{name}.png") as new:
        assert old.size == new.size
        apart = np.abs(np.float32(old.convert("RGB")) - np.float32(new.convert("RGB")))
    assert apart.mean() < 6, "run `python docs/make_gallery.py`"


def correlate(image, kernel):
    """[H, W], [h, w] -> [H - h + 1, W - w + 1], by loops."""
    (H, W), (h, w) = image.shape, kernel.shape
    out = np.zeros((H - h + 1, W - w + 1))
    for i, j, a, b in itertools.product(*map(range, (*out.shape, h, w))):
        out[i, j] += image[i + a, j + b] * kernel[a, b]
    return out


def test_convolution_and_padding(ran):
    names, *_ = ran("convolution")
    edge = np.array([[10.0] * 3 + [0.0] * 3] * 6)
    expected = correlate(edge, np.array([[1.0, 0.0, -1.0]] * 3))
    np.testing.assert_array_equal(names["by_hand"], expected)
    np.testing.assert_array_equal(names["by_layer"], expected)
    names, *_ = ran("padding")
    for pixels, found in zip((0, 1, 2), names["maps"].values(), strict=True):
        expected = correlate(np.pad(np.ones((5, 5)), pixels), np.ones((3, 3)))
        np.testing.assert_array_equal(found, expected)


def test_stride_keeps_every_so_many_places(ran):
    names, *_ = ran("stride")
    whole = correlate(names["digit"][0, ..., 0], names["kernel"][..., 0, 0])
    for stride, found in names["maps"].items():
        np.testing.assert_allclose(found, whole[::stride, ::stride], atol=1e-6)
        assert found.shape == (names["sizes"][stride],) * 2


def test_pooling(ran):
    names, *_ = ran("pooling")
    windows = [names["numbers"][i : i + 2, j : j + 2] for i in (0, 2) for j in (0, 2)]
    assert names["largest"].ravel().tolist() == [w.max() for w in windows]
    assert names["mean"].ravel().tolist() == [w.mean() for w in windows]
    assert names["changes"]["max 4×4"] < names["changes"]["the picture"]


def test_the_receptive_field_is_where_a_change_is_seen(ran):
    names, *_ = ran("receptive_field")
    for name, seen in names["seen"].items():
        rows = np.flatnonzero(seen.sum(1))
        assert rows[-1] - rows[0] + 1 == names["fields"][name]
        np.testing.assert_allclose(seen.sum(), 1, rtol=1e-3)  # each layer takes means


def test_dimensions(ran):
    names, *_ = ran("dimensions")
    padded = np.pad(names["signal"], 4)
    expected = [padded[t : t + 9].mean() for t in range(120)]
    np.testing.assert_allclose(names["smooth"], expected, atol=1e-5)
    film = np.pad(names["film"], ((0, 0), (1, 1), (1, 1)))
    expected = correlate(film[3] - film[1], np.full((3, 3), 1 / 9))
    np.testing.assert_allclose(names["motion"][2], expected, atol=1e-5)
    assert names["weights"] == 5**3 * 3 * 16


def test_response_normalization(ran):
    names, *_ = ran("lrn")
    loud = names["loud"].astype(float)
    for i, found in enumerate(names["normalized"]):
        around = sum(loud[j] ** 2 for j in range(max(0, i - 2), min(16, i + 3)))
        np.testing.assert_allclose(found, loud[i] / (2 + 1e-4 * around) ** 0.75, rtol=1e-5)


def test_dropout_keeps_the_mean_and_adds_the_variance(ran):
    names, *_ = ran("dropout")
    units = np.asarray(names["units"], float)
    for rate, sums in names["sums"].items():
        std = np.sqrt(rate / (1 - rate) * (units**2).sum())
        assert abs(sums.mean() - units.sum()) < 4 * std / np.sqrt(len(sums))
        assert abs(sums.std() - std) < 0.05 * std


def test_inception_counts(ran):
    names, *_ = ran("inception")
    pixels = 28 * 28
    by_formula = {
        "conv1x1": (192, 64, 1), "reduce3x3": (192, 96, 1), "conv3x3": (96, 128, 3),
        "reduce5x5": (192, 16, 1), "conv5x5": (16, 32, 5), "project": (192, 32, 1),
    }  # fmt: skip
    for name, (inputs, outputs, window) in by_formula.items():
        assert names["macs"][name] == pixels * inputs * outputs * window**2
        assert names["layers"][name].params == (inputs * window**2 + 1) * outputs


def test_the_residual_gradient_is_that_of_a_chain_of_derivatives(ran):
    """Layer by layer with vector-Jacobian products, instead of through the scan."""
    names, *_ = ran("residuals")
    kernels, layer = 0.5 * names["he"], names["layer"]
    block = jax.jit(lambda kernel, x: x + layer(kernel, x))
    back = jax.jit(lambda kernel, x, g: jax.vjp(functools.partial(block, kernel), x)[1](g)[0])
    entered = [names["image"]]
    for kernel in kernels:
        entered.append(block(kernel, entered[-1]))
    gradient, expected = np.ones_like(entered[-1]), []
    for kernel, x in zip(reversed(kernels), reversed(entered[:-1]), strict=True):
        gradient = back(kernel, x, gradient)
        expected.insert(0, float(np.sqrt(np.square(gradient).sum())))
    expected = np.array(expected) / expected[-1]
    np.testing.assert_allclose(names["shares"]["residual", 0.5], expected, rtol=1e-3)
    assert names["shares"]["plain", 0.5][0] < 1e-9 < 1 < names["shares"]["residual", 0.5][0]


def test_back_propagation_by_small_differences(ran):
    """Each gradient against the loss's change, in double precision by loops."""
    names, *_ = ran("backpropagation")
    at = {name: np.array(names[name], np.float64) for name in "xwb"}

    def loss(x, w, b):
        return np.square(np.maximum(correlate(x, w) + b, 0) - names["wanted"]).sum() / 2

    at["b"] = at["b"] - 1e-4  # where z is 0, ReLU's derivative is the one from below
    for name, value in at.items():
        for place in np.ndindex(value.shape):
            step = np.zeros(value.shape)
            step[place] = 1e-5
            slope = loss(**{**at, name: value + step}) - loss(**{**at, name: value - step})
            found = np.asarray(names["by_hand"][name])[place]
            np.testing.assert_allclose(found, slope / 2e-5, atol=2e-3)


def test_why_convolutions(ran):
    names, *_ = ran("why_convolutions")
    assert names["counts"] == {
        "dense": 32 * 32 * 3 * 28 * 28 * 6 + 28 * 28 * 6,
        "convolution": 5 * 5 * 3 * 6 + 6,
    }
    image = np.random.default_rng(0).normal(size=(6, 6))
    expected = correlate(image, names["kernel"][..., 0, 0])
    np.testing.assert_allclose(names["matrix"] @ image.ravel(), expected.ravel(), atol=1e-5)
    assert names["errors"]["convolution"][1] < 1e-5 < 0.5 < names["errors"]["dense"][1]


def test_augmentation_moves_boxes_and_mixes_labels(ran):
    names, *_ = ran("augmentation")
    mixed, images = names["mixed"], names["images"]
    share = float(mixed["label_weight"][0])
    blend = share * images[0] + (1 - share) * images[int(mixed["label_b"][0])]
    np.testing.assert_allclose(mixed["image"][0], blend, atol=1e-5)
    mirrored, box = names["results"]["flip_left_right"]
    np.testing.assert_allclose(mirrored, images[0][:, ::-1], atol=1e-6)
    np.testing.assert_allclose(box / 64, [0.08, 1 - 0.88, 0.96, 1 - 0.1], atol=1e-5)


def test_learned_filters_have_left_the_noise(ran):
    """The learned bank is smoother than where it began: neighbouring weights agree more."""
    names, *_ = ran("filters")

    def roughness(bank):
        steps = np.square(np.diff(bank, axis=0)).sum() + np.square(np.diff(bank, axis=1)).sum()
        return steps / np.square(bank).sum()

    banks = names["banks"]
    assert roughness(banks["learned"]) < 0.8 * roughness(banks["noise, before training"])
    assert min(names["by_design"], names["by_learning"]) > 0.9
