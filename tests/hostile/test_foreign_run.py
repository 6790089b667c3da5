"""What of somebody else's run directory is executed, as SECURITY.md says it."""

import json

import jax
import numpy as np
import pytest

from jaxcnn.core.rendering import render
from jaxcnn.data.recorded import record
from jaxcnn.runs.open import Run
from jaxcnn.weights.files import write_arrays
from jaxcnn.weights.identity import metadata_of
from jaxcnn.weights.load import fill
from tests.hostile.watch import watched
from tests.tiny import TinyNet, tiny


@pytest.fixture
def foreign(tmp_path):
    """A run directory whose code leaves a mark beside it."""
    e, folder = tiny(), tmp_path / "run"
    (folder / "code").mkdir(parents=True)
    code = f"open({str(tmp_path / 'canary')!r}, 'w').close()\nfrom tests.tiny import tiny\n"
    (folder / "code" / "theirs.py").write_text(code + "experiment = tiny()\n")
    kept = {"file": "theirs.py", "module": "theirs", "overrides": [], "local": {}}
    content = {"format": 2, "experiment": "theirs", "code": kept, "environment": {}}
    content |= {"steps_per_dispatch": 1}
    content |= {"rendered": render(e), "data": record(e.data).to_json()}
    (folder / "run.json").write_text(json.dumps(content))
    (folder / "checkpoints").mkdir()
    return folder


def test_opening_it_executes_its_code(foreign, tmp_path):
    assert isinstance(Run(foreign).record, dict)
    assert not (tmp_path / "canary").exists()  # nothing before it is asked for
    _ = Run(foreign).experiment
    assert (tmp_path / "canary").exists()


def test_an_experiment_of_your_own_executes_nothing_of_it(foreign, tmp_path):
    e = tiny()
    with watched(foreign) as seen:
        run = Run(foreign, e)
        assert run.experiment is e
        _ = run.data, run.summary, run.history, run.metrics, repr(run)
    assert seen == []
    assert not (tmp_path / "canary").exists()


def test_weights_of_it_execute_nothing(foreign, tmp_path):
    variables = TinyNet().init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32), train=False)
    params, statistics = variables["params"], {"batch_stats": variables["batch_stats"]}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = {"params/" + "/".join(k.key for k in path): np.asarray(x) for path, x in leaves}
    metadata = metadata_of(run=None, step=1, best=False)
    write_arrays(foreign / "checkpoints" / "last-000000001.safetensors", names, metadata)
    with watched(foreign) as seen:
        _, _, report = fill(TinyNet(), params, statistics, foreign)
    assert len(report.loaded) == len(names)
    assert seen == []
    assert not (tmp_path / "canary").exists()
