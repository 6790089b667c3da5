"""LiteRT: a file that answers as the run does where there is neither JAX nor jaxcnn, and a message
for a model that it does not express.
"""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.core.program import make_program
from jaxcnn.data.made.digits import Digits
from jaxcnn.data.recorded import Recorded
from jaxcnn.errors import ConfigError
from jaxcnn.models.video import SmallVideoNet
from jaxcnn.runs.formats import export_as
from jaxcnn.runs.train import train
from jaxcnn.tasks.classification import Classification
from tests.tiny import TinyNet, tiny

pytest.importorskip("litert_converter", reason="pip install 'jaxcnn[litert]'")
pytest.importorskip("ai_edge_litert", reason="pip install 'jaxcnn[litert]'")


def test_digits_are_told_where_there_is_neither_jax_nor_jaxcnn(tmp_path):
    e = tiny(data=Digits(), model=TinyNet(num_classes=10), task=Classification(num_classes=10))
    run = train(e, tmp_path / "run", quiet=True)
    result = run.export(tmp_path / "m.tflite", format="litert")
    assert result["checked"]["largest_difference"] < 1e-4
    assert result["checked"]["rows"] == [7]
    assert result["outputs"]["label"] == "int32[1]"
    images = np.asarray(Digits().open("eval").take(np.arange(40))["image"])
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, json, zipfile\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('jax', 'jaxlib', 'jaxcnn', 'litert_converter'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "import numpy\n"
        "from ai_edge_litert.interpreter import Interpreter\n"
        "ask = Interpreter('m.tflite').get_signature_runner()\n"
        "rows = [ask(image=x[None]) for x in numpy.load('images.npy')]\n"
        "told = [[int(r['label'][0]), float(r['probability'][0])] for r in rows]\n"
        "print(json.dumps([told, json.loads(zipfile.ZipFile('m.tflite').read('jaxcnn.json'))]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told, about = json.loads(done.stdout)
    ours = run.predict(images)
    assert [label for label, _ in told] == [row["label"] for row in ours]
    probabilities = [row["probability"] for row in ours]
    np.testing.assert_allclose([p for _, p in told], probabilities, rtol=1e-5)
    assert (about["task"], about["model"]) == ("Classification", "TinyNet")
    assert about["label_names"] == list(Digits().label_names)
    expected = {"dtype": "uint8", "layout": "NHWC", "range": [0, 255]}
    assert about["inputs"]["image"] == expected | {"shape": [1, *images.shape[1:]]}


class Odd(nn.Module):
    """With an operation that LiteRT lacks."""

    operation: str

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = image.reshape(image.shape[0], -1)
        if self.operation == "sort":
            x = jnp.sort(x, axis=1)
        if self.operation == "scan":
            x = jax.lax.scan(lambda c, i: (jnp.tanh(c + i), c), x[:, 0], x.T)[1].T
        return nn.Dense(3)(x)


@pytest.mark.parametrize(
    "model, shape, said",
    [
        (Odd("sort"), (8, 8, 1), "its interpreter: .*STABLEHLO_SORT"),
        (Odd("scan"), (8, 8, 1), "its converter: operations that it does not express: .*while"),
        (SmallVideoNet(num_classes=3), (4, 16, 16, 1), "its converter: ended by SIGSEGV"),
    ],
    ids=["sort", "scan", "3-D"],
)
def test_what_it_lacks_is_named_and_the_old_file_stays(tmp_path, model, shape, said):
    data = Recorded((("image", shape, "uint8"), ("label", (), "int32")), sizes=(("train", 9),))
    e = tiny(model=model, data=data)
    state = jax.jit(make_program(e, steps=1).init)(jax.random.key(0))
    file = tmp_path / "m.tflite"
    file.write_text("old")
    with pytest.raises(ConfigError, match=f"LiteRT does not express this model.*{said}"):
        export_as(e, state, file, format="litert", int8=0, label_names=())
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
