"""Exports that need no package of others: weights as safetensors, StableHLO, and what is refused;
the graph of ONNX before it is written.
"""

import importlib.util
import json
from collections import Counter
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.core.program import make_program
from jaxcnn.errors import ConfigError, DependencyError
from jaxcnn.models.resnet import resnet_cifar
from jaxcnn.ops.convolution import formulation
from jaxcnn.runs import export, litert
from jaxcnn.runs.export import _described, export_model
from jaxcnn.runs.formats import export_as
from jaxcnn.runs.onnx_export import elementwise, indexing, loops, windows, write
from jaxcnn.runs.onnx_export.graph import RULES, Graph, Value
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.train import train
from jaxcnn.weights.load import fill
from tests.tiny import arrays, tiny

MODULES = (elementwise, indexing, loops, windows)  # they fill RULES


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    train(tiny(), folder, quiet=True)
    return open_run(folder, tiny())


def test_an_export_is_for_the_platforms_that_are_asked_for(run):
    exported, _ = export_model(run.experiment, run.state, platforms=("cpu", "cuda"))
    assert exported.platforms == ("cpu", "cuda")


def test_what_pictures_are_is_said():
    said = _described("image", jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.uint8))
    assert said == {
        "dtype": "uint8", "shape": [2, 8, 8, 3], "layout": "NHWC", "range": [0, 255]}  # fmt: skip
    assert _described("image", jax.ShapeDtypeStruct((2, 8, 3), jnp.float32))["layout"] == "NWC"
    floats = _described("left_image", jax.ShapeDtypeStruct((2, 4, 8, 8, 3), jnp.float32))
    assert (floats["layout"], floats["range"]) == ("NDHWC", [0.0, 1.0])
    plain = _described("signal", jax.ShapeDtypeStruct((2, 8), jnp.float32))
    assert plain == {"dtype": "float32", "shape": [2, 8]}


def graph_of(function, *shapes):
    """The graph of a function of arrays whose first extent is free."""
    (rows,) = jax.export.symbolic_shape("rows")
    given = [jax.ShapeDtypeStruct((rows, *shape), jnp.float32) for shape in shapes]
    with formulation("natural"):
        closed = jax.make_jaxpr(function)(*given)
    graph = Graph(rows)
    values = [Value(s.shape, s.dtype, name=f"x{i}") for i, s in enumerate(given)]
    return graph, graph.inline(closed.jaxpr, closed.consts, values)


def test_the_weights_start_another_run(run, tmp_path):
    """Those that were evaluated: of a run with an average, the average."""
    result = run.export(tmp_path / "w.safetensors", format="safetensors")
    from safetensors.numpy import load_file

    loaded = load_file(tmp_path / "w.safetensors")
    assert set(loaded) >= {"params/Conv_0/kernel", "batch_stats/BatchNorm_0/mean"}
    assert result["arrays"] == len(loaded)
    assert result["numbers"] == sum(x.size for x in loaded.values())
    np.testing.assert_array_equal(loaded["params/Conv_0/kernel"], run.state.ema["Conv_0"]["kernel"])
    fresh = make_program(tiny(), steps=1).init(jax.random.key(9))
    params, statistics, report = fill(
        tiny().model, fresh.params, fresh.model_state, tmp_path / "w.safetensors"
    )
    assert (report.share, report.unused) == (1, ())
    for found, expected in ((params, run.state.ema), (statistics, run.state.ema_state)):
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_stablehlo_is_the_default(run, tmp_path):
    result = run.export(tmp_path / "m.jax")
    assert (result["format"], result["inputs"]) == ("stablehlo", {"image": "uint8[rows, 8, 8, 1]"})
    call = jax.export.deserialize(bytearray((tmp_path / "m.jax").read_bytes())).call
    images = arrays(5)["image"]
    told = [row["label"] for row in run.predict(images)]
    np.testing.assert_array_equal(call({"image": images})["label"], told)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"format": "onyx"}, ConfigError, "did you mean 'onnx'"),
        ({"format": "tflite"}, ConfigError, "there are stablehlo, onnx, litert, safetensors"),
        ({"format": "litert", "int8": 4}, ConfigError, "format='onnx'"),
        ({"format": "safetensors", "int8": 4}, ConfigError, "format='onnx'"),
        ({"platforms": ("cpu", "gpu")}, ConfigError, r"'gpu' is unknown.*cpu, cuda, rocm, tpu"),
        ({"platforms": ("",)}, ConfigError, "'' is unknown"),
        ({"platforms": ()}, ConfigError, r"platforms=\(\): a tuple of names.*one at least"),
        ({"platforms": "cpu"}, ConfigError, "platforms='cpu': a tuple of names"),
        ({"platforms": ("cpu",), "format": "onnx"}, ConfigError, "of format 'stablehlo' alone"),
        ({"platforms": ("cpu",), "format": "safetensors"}, ConfigError, "'stablehlo' alone"),
    ],
)
def test_what_is_no_format_is_refused(run, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        run.export(tmp_path / "m", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["stablehlo", "onnx", "litert", "safetensors"])
def test_a_folder_is_no_file(run, tmp_path, format):
    with pytest.raises(ConfigError, match=f"is a folder; give the name of a file, e.g. {tmp_path}"):
        run.export(tmp_path, format=format)
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_remedy_is_said(run, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name)
    )
    with pytest.raises(DependencyError, match=r"pip install 'jaxcnn\[onnx\]'"):
        run.export(tmp_path / "m.onnx", format="onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "here, said",
    [
        ({}, "here: litert-converter not installed, ai-edge-litert not installed"),
        ({"litert-converter": "0.51.0", "ai-edge-litert": "2.3.9"}, "here: litert-converter 0.51"),
    ],
)
def test_litert_of_another_version_is_none(run, tmp_path, monkeypatch, here, said):
    found = metadata.version
    monkeypatch.setattr(litert.metadata, "version", lambda n: here.get(n) or found("absent"))
    with pytest.raises(DependencyError, match=rf"{said}.*pip install 'jaxcnn\[litert\]'"):
        run.export(tmp_path / "m.tflite", format="litert")
    assert not list(tmp_path.iterdir())


def test_each_format_is_made_of_the_run_as_it_was_asked_for(run, tmp_path, monkeypatch):
    writers = {
        "onnx": (write, "export_onnx"), "litert": (litert, "export_litert"),
        "safetensors": (export, "export_weights"), "stablehlo": (export, "export"),
    }  # fmt: skip
    for format, place in writers.items():
        monkeypatch.setattr(*place, lambda *given, format=format, **more: (format, given, more))
    e, names = tiny(), ("a", "b", "c")
    for format, own in (
        ("onnx", {"int8": 20}), ("onnx", {"int8": 0}), ("litert", {}), ("safetensors", {}),
        ("stablehlo", {"platforms": ("cpu", "cuda")}), ("stablehlo", {}),
    ):  # fmt: skip
        asked = {"int8": 0, **own}
        found, (experiment, state, path), more = export_as(
            e, run.state, tmp_path / "m", format=format, label_names=names, **asked
        )
        if format == "stablehlo":
            own = {"platforms": ("cpu", "cuda", "tpu"), **own}
        assert (found, path, more) == (format, tmp_path / "m", {"label_names": names, **own})
        assert experiment is e
        assert state is run.state


LIAR = """
import json, pathlib, sys
import numpy as np
folder = pathlib.Path(sys.argv[2])
names = json.loads((folder / "names.json").read_text())["outputs"]
if sys.argv[1] == "convert":
    (folder / "model.tflite").write_bytes(b"model")
else:
    np.savez(folder / "answers.npz", **{name: np.zeros(7) for name in names})
"""


@pytest.mark.parametrize(
    "code, said",
    [
        (LIAR, "of 'label' 100.0% of the numbers differ between LiteRT and JAX"),
        ("import os; os.abort()", "its converter: ended by SIGABRT"),
        ("import sys; print('no sorts'); sys.exit(1)", "its converter: no sorts"),
        ("raise OSError('gone')", "its converter: OSError: gone"),
        # of its last line, as much as one can read
        ("import sys; sys.exit('more\\n' + 'x' * 999)", r"its converter: x{300}\)"),
    ],
)
def test_a_converter_that_dies_or_lies_ends_in_a_message(run, tmp_path, monkeypatch, code, said):
    script = tmp_path / "child.py"
    script.write_text(code)
    monkeypatch.setattr(litert, "_require", lambda: None)
    monkeypatch.setattr(litert.litert_child, "__file__", str(script))
    with pytest.raises(ConfigError, match=rf"{said}.*with the format '(onnx' or '|)stablehlo'"):
        run.export(tmp_path / "m.tflite", format="litert")
    assert list(tmp_path.iterdir()) == [script]


# ---- the graph, which needs no package


def test_a_residual_network_turns_its_axes_once():
    """From channels last to first; all else stays in that order, BatchNorm joins into sums."""
    model = resnet_cifar(depth=8)
    x = jnp.zeros((1, 16, 16, 3))
    variables = jax.eval_shape(lambda k: model.init(k, x, train=False), jax.random.key(0))
    variables = jax.tree.map(lambda s: np.full(s.shape, 0.5, s.dtype), variables)
    graph, (y,) = graph_of(lambda x: model.apply(variables, x, train=False), (16, 16, 3))
    counts = Counter(node.op for node in graph.nodes)
    assert counts["Transpose"] == 1
    assert counts["Conv"] == 7 + 2  # and the shortcuts
    assert not {"Sub", "Sqrt", "Expand"} & set(counts)
    assert y.shape[1:] == (10,)


def test_what_is_known_is_computed_at_once():
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph, _ = graph_of(lambda x: x + jnp.sqrt(jnp.asarray(table).sum(0)).reshape(1, 3), (3,))
    assert [node.op for node in graph.nodes] == ["Add"]
    (known,) = (graph.arrays[n] for n in graph.nodes[0].inputs if n in graph.arrays)
    np.testing.assert_allclose(known, np.sqrt([[3, 5, 7]]), rtol=1e-6)


@pytest.mark.parametrize(
    "function, operation",
    [
        (lambda x: x + jax.random.normal(jax.random.key(0), x.shape), "random_bits"),
        (lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x), "while"),
        (lambda x: jnp.fft.fft(x).real, "fft"),
    ],
)
def test_an_operation_that_onnx_lacks_is_named(function, operation):
    assert operation not in RULES
    with pytest.raises(ConfigError, match=f"'{operation}' in .* with the format 'stablehlo'"):
        graph_of(function, (4,))


def test_no_part_of_the_rows_is_taken():
    with pytest.raises(ConfigError, match="takes a part of the rows"):
        graph_of(lambda x: x[:1] + x, (4,))


def test_the_command_says_what_it_wrote(run, tmp_path, capsys):
    from jaxcnn.commands.export import _described

    result = run.export(tmp_path / "w.safetensors", format="safetensors")
    assert "safetensors.numpy.load_file" in _described(json.loads(json.dumps(result)))
