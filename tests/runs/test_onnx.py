"""ONNX: what ONNX Runtime answers is what JAX answers, operation by operation, model by model, run
by run; and the file is opened where there is neither JAX nor jaxcnn.
"""

import dataclasses
import json
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError
from jaxcnn.layers import avg_pool, max_pool
from jaxcnn.models import build
from jaxcnn.models.convnext import ConvNeXt
from jaxcnn.models.densenet import DenseNet
from jaxcnn.ops.convolution import formulation
from jaxcnn.runs.agreement import apart, compare
from jaxcnn.runs.export import Traced, traced
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.train import train
from tests.tiny import arrays, tiny

pytest.importorskip("onnx", reason="pip install 'jaxcnn[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'jaxcnn[onnx]'")

from jaxcnn.runs.onnx_export import proto as proto_module  # noqa: E402
from jaxcnn.runs.onnx_export.proto import to_onnx  # noqa: E402
from jaxcnn.runs.onnx_export.runtime import answers, session  # noqa: E402


def both(function, shape, *, dtype=np.float32, numbers=None):
    """[(JAX's answer, ONNX Runtime's), …] for 1 row and 7 rows of noise."""
    (rows,) = jax.export.symbolic_shape("rows")
    random = np.random.default_rng(3)
    batch = {"x": jax.ShapeDtypeStruct((rows, *shape), dtype)}
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        formulation("natural"),
    ):
        model, _ = to_onnx(lambda b: {"y": function(b["x"])}, batch, rows=rows)
        running, pairs = session(model.SerializeToString()), []
        for count in (1, 7):
            x = random.normal(size=(count, *shape)) * 2
            x = random.integers(*numbers, x.shape) if numbers else x
            x = x.astype(dtype)
            expected = np.asarray(function(jnp.asarray(x)))
            pairs.append((expected, answers(running, {"x": x})["y"]))
    return pairs


def same(function, shape, **options):
    for expected, found in both(function, shape, **options):
        assert apart(expected, found)[0] < 1e-5


def conv(**options):
    """A convolution of 3 channels to 4, its window 3 x 3."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3 // options.get("groups", 1), 6))
    given = {"window_strides": (1, 1), "padding": "SAME"} | options
    given["feature_group_count"] = given.pop("groups", 1)
    return lambda x: jax.lax.conv_general_dilated(
        x, kernel.astype(np.float32), dimension_numbers=("NHWC", "HWIO", "NHWC"), **given
    )


CONVOLUTIONS = {
    "same": {},
    "strides": {"window_strides": (2, 1), "padding": ((1, 0), (0, 2))},
    "dilation": {"rhs_dilation": (2, 1)},
    "groups": {"groups": 3},
    "transposed": {"lhs_dilation": (2, 3), "padding": ((1, 2), (2, 1))},
    "transposed, little padding": {"lhs_dilation": (2, 2), "padding": ((0, 0), (0, 0))},
    "transposed, much padding": {"lhs_dilation": (2, 2), "padding": ((3, 4), (4, 2))},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    same(conv(**CONVOLUTIONS[name]), (7, 6, 3))


TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)
ELEMENTWISE = {
    "curves": lambda x: jnp.tanh(x) + jax.nn.sigmoid(x) * jax.nn.gelu(x, approximate=False),
    "powers": lambda x: jnp.abs(x) ** 2.5 + x**3 + jax.lax.rsqrt(jnp.abs(x) + 1),
    "near 0": lambda x: jnp.log1p(x * 3e-4) + jnp.expm1(x * 1e-3),
    "far from 0": lambda x: jnp.log1p(jnp.abs(x)) + jnp.expm1(x / 2),
    "nearer": lambda x: jnp.log1p(x * 1e-9) + jnp.expm1(x * 1e-8),
    "rounding": lambda x: jnp.round(x * 4) + jnp.floor(x) - jnp.ceil(x) + jnp.sign(x),
    "half to even": lambda x: jnp.round(jnp.round(x * 2) / 2),
    "remainders": lambda x: jax.lax.rem(x, jnp.full_like(x, 0.7)) + x % 0.3,
    "choices": lambda x: jnp.where(jnp.isfinite(jnp.log(x)), jnp.clip(x, -1, 0.5), 9),
    "truths": lambda x: jnp.where(x > 0, x < 1, ~(x > -1)) ^ (x != 0),
    "integers": lambda x: (x * 9).astype(jnp.int32) // 2 + (x * 9).astype(jnp.int32) % 3,
    "relu of a sum with a row": lambda x: jax.nn.relu(x - jnp.arange(3.0)),
    "softmax": lambda x: jax.nn.softmax(x, axis=1) + jax.nn.log_softmax(x, axis=-1),
}
ARRAYS = {
    "means": lambda x: x.mean((1, 2)) + x.max((1, 2)) - x.min((1, 2)) * x.sum(),
    "any and all": lambda x: jnp.stack([(x > 1).any((1, 2)), (x > -3).all((1, 2))], axis=1),
    "largest": lambda x: jnp.argmax(x, axis=1) * 10 + jnp.argmin(x, axis=1),
    "order": lambda x: jnp.concatenate([jnp.flip(x, 1), x, x[:, 1::2]], axis=1),
    "transposed": lambda x: x.transpose(2, 0, 1).reshape(-1, x.shape[1]).sum(1) * 1.0,
    "padding": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1)), mode="edge"),
    "cutting": lambda x: jax.lax.pad(x, 1.5, ((0, 0, 0), (-1, 2, 0), (1, -1, 0))),
    "sorting": lambda x: jnp.argsort(jnp.round(x), axis=1, stable=True),
    "top": lambda x: jnp.concatenate(jax.lax.top_k(jnp.round(x), 2)[:1], axis=-1),
    "places of the top": lambda x: jax.lax.top_k(jnp.abs(jnp.round(x)), 3)[1],
    "sums along": lambda x: jnp.cumsum(x, axis=1),
    "tiles": lambda x: jnp.tile(x, (1, 2, 3)),
    "splits": lambda x: jnp.split(x, 3, axis=2)[1],
    "counts": lambda x: jnp.arange(x.shape[0])[:, None] + jnp.arange(5),
    "products": lambda x: jnp.einsum("bij,bkj->bik", x, x) @ TABLE,
    "inner": lambda x: jnp.einsum("bij,jk,li->blk", x, TABLE.T, TABLE.T),
}
INDEXING = {
    "columns": lambda x: x[:, np.array([2, 0, 2])],
    "one": lambda x: x[:, -1, 1:3],
    "by each row": lambda x: jnp.take_along_axis(x, jnp.argsort(x, axis=1), axis=1),
    "a table": lambda x: jnp.asarray(TABLE)[jnp.clip(x[..., 0], 0, 3).astype(jnp.int32)],
    "outside is filled": lambda x: jnp.take(
        jnp.asarray(TABLE), (x[..., 0] * 3).astype(jnp.int32), axis=0, mode="fill", fill_value=7.0
    ),
    "outside is clipped": lambda x: jnp.take(
        jnp.asarray(TABLE), (x[..., 0] * 3).astype(jnp.int32), axis=0, mode="clip"
    ),
    "windows": jax.vmap(lambda x: jax.lax.dynamic_slice(x, (x[0, 0].astype(int), 1), (2, 2))),
    "a window": lambda x: jax.lax.dynamic_slice_in_dim(x, x.argmax() % 9, 2, axis=1),
    "a place written": lambda x: x.at[:, x.argmax() % 4].set(5.0),
    "outside nothing is written": lambda x: x.at[:, x.argmax() * 0 + 9].set(5.0),
    "a part written": lambda x: jax.lax.dynamic_update_slice_in_dim(x, x[:, :2], x.argmax() % 9, 1),
    "each row's places written": jax.vmap(
        lambda x: jnp.zeros((4,), bool).at[jnp.argsort(x[:, 0])].set(x[:, 1] > 0)
    ),
    "written, partly outside": jax.vmap(
        lambda x: jnp.zeros((4,)).at[jnp.arange(4) * 2 + x.argmax() * 0].set(x[:, 1])
    ),
}


def _carried(x):
    def step(carry, item):
        total, n = carry
        return (total + item, n + 1), jnp.tanh(total) * n.astype(jnp.float32)

    start = (jnp.zeros_like(x[:, 0]), jnp.int32(0))
    (total, n), seen = jax.lax.scan(step, start, jnp.moveaxis(x, 1, 0))
    return jnp.concatenate([jnp.moveaxis(seen, 0, 1), (total * n.astype(jnp.float32))[:, None]], 1)


LOOPS = {
    "scan": _carried,
    "backwards": lambda x: jax.lax.scan(
        lambda c, i: (c * 0.5 + i, c), x[:, 0], jnp.moveaxis(x, 1, 0), reverse=True
    )[1].sum((0, 2)),
    "for": lambda x: jax.lax.fori_loop(0, 5, lambda i, y: y * 0.5 + i, x),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    same(ELEMENTWISE[name], (4, 3))


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name):
    same(ARRAYS[name], (4, 3))


@pytest.mark.parametrize("name", INDEXING)
def test_indexing(name):
    same(INDEXING[name], (4, 3))


@pytest.mark.parametrize("name", LOOPS)
def test_loops(name):
    same(LOOPS[name], (4, 3))


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: max_pool(x, (3, 2), strides=(2, 1), padding="SAME"),
        lambda x: avg_pool(x, (2, 2), padding=((1, 0), (0, 1))),
        lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 1, 1, 3), (1, 1, 1, 1), "SAME"),
        lambda x: jax.vmap(lambda y: max_pool(y[None], (2, 2))[0])(conv()(x)) * 2,
    ],
)
def test_pooling(pool):
    same(pool, (6, 5, 3))


SMALL = {  # and no shape of their own
    "convnext": (ConvNeXt((1, 1), 10, widths=(8, 16)), ()),
    "densenet": (DenseNet((2, 2), 10, growth=4, stem_width=8), ()),
}


@pytest.mark.parametrize(
    "name, shape",
    [
        ("lenet5", None),
        ("resnet_cifar", (16, 16, 3)),
        ("densenet", (32, 32, 3)),
        ("convnext", (16, 16, 3)),
        ("speednet", (16, 16, 3)),
        ("resnet_1d", (32, 1)),
        ("small_video_net", (4, 16, 16, 1)),
        ("text_cnn", None),
    ],
)
def test_models(name, shape):
    """With weights that are noise, so that no output is small by chance."""
    model, own = SMALL[name] if name in SMALL else build(name)
    shape = shape or own
    tokens = name == "text_cnn"
    x = jnp.zeros((1, *shape), jnp.int32 if tokens else jnp.float32)
    shapes = jax.eval_shape(lambda k: model.init(k, x, train=False), jax.random.key(0))
    random = np.random.default_rng(0)

    def weights(path, s):
        if "var" in jax.tree_util.keystr(path):
            return (1 + random.random(s.shape)).astype(s.dtype)
        fan = np.sqrt(np.prod(s.shape[:-1], initial=1))
        return (random.normal(size=s.shape) * 1.5 / fan).astype(s.dtype)

    variables = jax.tree_util.tree_map_with_path(weights, shapes)
    options = {"dtype": np.int32, "numbers": (0, 30)} if tokens else {}
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    for expected, found in both(apply, shape, **options):
        assert np.abs(expected).max() > 1e-3
        assert apart(expected, found)[0] < 1e-4


# ---- runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "run"
    data = Arrays(train=arrays(50), eval=arrays(21, seed=1), label_names=("ant", "Bär", "cat"))
    e = tiny(data=data)
    train(e, folder, quiet=True)
    return open_run(folder, e)


def test_the_file_is_opened_where_there_is_neither_jax_nor_jaxcnn(run, tmp_path):
    result = run.export(tmp_path / "m.onnx", format="onnx")
    assert result["checked"]["largest_difference"] < 1e-4
    assert result["outputs"]["label"] == "int32[rows]"
    images = arrays(7, seed=4)["image"]
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, json\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('jax', 'jaxlib', 'jaxcnn', 'flax', 'onnx'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "import numpy, onnxruntime\n"
        "s = onnxruntime.InferenceSession('m.onnx')\n"
        "labels = s.run(['label'], {'image': numpy.load('images.npy')})[0]\n"
        "meta = s.get_modelmeta().custom_metadata_map\n"
        "print(json.dumps([labels.tolist(), meta, 'jax' in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    labels, metadata, imported = json.loads(done.stdout)
    assert not imported
    assert labels == [row["label"] for row in run.predict(images)]
    assert metadata["task"] == "Classification"
    assert json.loads(metadata["label_names"]) == ["ant", "Bär", "cat"]
    assert json.loads(metadata["inputs"])["image"] == {
        "dtype": "uint8",
        "shape": ["rows", 8, 8, 1],
        "layout": "NHWC",
        "range": [0, 255],
    }


class Lying(Traced):
    """Answers one more than the model that was written."""

    def predict(self, batch):
        return {name: x + x.dtype.type(1) for name, x in super().predict(batch).items()}


@pytest.mark.parametrize("join", [jax.lax.reduce_or, jax.lax.reduce_and])
def test_bits_of_integers_are_not_taken_for_truth_values(join):
    same(lambda x: join(x > 0, (1,)), (3, 4))
    with pytest.raises(ConfigError, match=r"'reduce_\w+' in the model.*joins the bits of int32"):
        both(lambda x: join(x, (1,)), (3, 4), dtype=np.int32, numbers=(0, 8))


def test_another_answer_than_that_of_jax_is_refused(run, tmp_path):
    found = run.export(tmp_path / "m.onnx", format="onnx")["checked"]
    assert (found["rows"], found["off"]) == ([1, 7], 0)
    model = traced(run.decided(run.standalone()), run.state)
    ask = partial(answers, session(str(tmp_path / "m.onnx")))
    options = {"rows": (1, 7), "format": "onnx", "runtime": "ONNX Runtime"}
    assert compare(ask, model, **options) == found
    with pytest.raises(ConfigError, match="differ between ONNX Runtime and JAX"):
        compare(ask, Lying(*model), **options)


def test_a_model_that_is_refused_leaves_the_old_file(run, tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_text("old")
    monkeypatch.setattr(proto_module, "OPSET", 7)  # in which half of the operations were others
    with pytest.raises(ConfigError, match="refuses the model"):
        run.export(tmp_path / "m.onnx", format="onnx")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_large_weights_lie_beside_the_file(run, tmp_path, monkeypatch):
    whole = run.export(tmp_path / "whole.onnx", format="onnx")
    monkeypatch.setattr(proto_module, "LIMIT", 0)
    monkeypatch.setattr(proto_module, "SMALL", 64)
    result = run.export(tmp_path / "m.onnx", format="onnx")
    assert whole["files"] == [str(tmp_path / "whole.onnx")]
    assert result["files"] == [str(tmp_path / "m.onnx"), str(tmp_path / "m.onnx.data")]
    assert result["checked"] is None
    images = arrays(5, seed=2)["image"]
    a, b = (
        answers(session(str(tmp_path / n)), {"image": images}) for n in ("whole.onnx", "m.onnx")
    )
    for name, x in a.items():
        np.testing.assert_array_equal(x, b[name])


def test_8_bits_say_what_they_cost(run, tmp_path):
    result = run.export(tmp_path / "m.onnx", format="onnx", int8=20)
    told = result["int8"]
    assert (told["calibrated_on"], told["split"], told["metric"]) == (20, "eval", "accuracy")
    assert told["float32"] == pytest.approx(run.evaluate("eval")["accuracy"])
    running = session(str(tmp_path / "m.onnx"))
    assert [o.name for o in running.get_outputs()] == list(result["outputs"])
    assert not any(name.startswith("raw") for name in result["outputs"])
    source = tiny().data.open("eval")
    rows = source.take(np.arange(len(source), dtype=np.int32))
    right = answers(running, rows)["label"] == np.asarray(rows["label"])
    assert told["int8"] == pytest.approx(right.mean())


def test_8_bits_are_calibrated_on_training_rows_alone(run, tmp_path):
    """Other evaluation examples change no byte."""
    from jaxcnn.runs.onnx_export.write import export_onnx

    files = []
    for seed in (1, 2):
        data = dataclasses.replace(tiny().data, eval=arrays(21, seed=seed))
        files.append(tmp_path / f"{seed}.onnx")
        export_onnx(tiny(data=data), run.state, files[-1], label_names=(), int8=20)
    assert files[0].read_bytes() == files[1].read_bytes()
