"""Weights of the Hugging Face hub, from a double of it: what is fetched, what is recorded, what is
refused. Each with the package where that is installed, and with a stand-in for it.
"""

import functools
import importlib.util
import json
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxcnn.core import trees
from jaxcnn.errors import ConfigError, DataError, DependencyError
from jaxcnn.runs import code
from jaxcnn.runs.open import Run
from jaxcnn.runs.train import train
from jaxcnn.weights import hub as hub_weights
from jaxcnn.weights.hub import Place, fetch, parse
from jaxcnn.weights.load import fill
from tests.conftest import ROOT
from tests.hub import Hub, reachable, serving
from tests.tiny import Lines, TinyNet, tiny

HAVE = importlib.util.find_spec("huggingface_hub") is not None
REPO = "someone/tiny"


BY_STAND_IN = pytest.mark.parametrize("hub", ["stand-in"], indirect=True)  # of what comes after


@pytest.fixture(params=["package", "stand-in"])
def hub(request, tmp_path, monkeypatch):
    real = request.param == "package"
    if real and not HAVE:
        pytest.skip("huggingface_hub is not installed; the stand-in was tried")
    with reachable(Hub(), tmp_path / "cache", monkeypatch, real=real) as found:
        yield found


@functools.cache
def variables(seed):
    shape = np.zeros((1, 8, 8, 1), np.float32)
    return TinyNet().init(jax.random.key(seed), shape, train=False)


def safetensors_of(tree):
    """As the package safetensors writes it: somebody else's file, without our seal."""
    from safetensors.numpy import save

    return save({k.replace("/", "."): np.asarray(v) for k, v in trees.flatten(tree).items()})


def filled(address, seed=0):
    fresh = variables(seed)
    return fill(TinyNet(), fresh["params"], {"batch_stats": fresh["batch_stats"]}, address)


@pytest.mark.parametrize(
    "address, place",
    [
        ("hf://a/b", Place("a/b", None, None)),
        ("hf://a-1/b.c_d@v1.0", Place("a-1/b.c_d", "v1.0", None)),
        ("hf://a/b/c/d.safetensors", Place("a/b", None, "c/d.safetensors")),
        ("hf://a/b@refs/pr/3/d.bin", Place("a/b", "refs/pr/3", "d.bin")),
        ("hf://a/b@main/d.npz", Place("a/b", "main", "d.npz")),
    ],
)
def test_addresses(address, place):
    assert parse(address) == place
    assert str(place) == address


@pytest.mark.parametrize(
    "address",
    [
        *("hf://a", "hf://a/", "hf://a/b@", "hf://a/b/", "hf://a/b/../../x.bin", "hf:///a/b"),
        *("hf://a/b//x.bin", "hf://a/b/x.bin@main", "hf://-a/b", "hf://a/b c", "hf://a/b\\c.bin"),
        *("hf://a/b/weights.py", "hf://a/b/config.json", "hf://a/b/..", "hf://ä/b"),
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_fetched(address, monkeypatch):
    monkeypatch.setattr(hub_weights, "require", lambda: pytest.fail("fetched"))
    with pytest.raises(ConfigError, match="weights: 'hf://"):
        fetch(address)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"pip install 'jaxcnn\[hub\]'"):
        fetch("hf://a/b")


def test_a_plain_file_of_others_is_found_filled_and_named_by_its_commit(hub):
    theirs = variables(7)
    commit = hub.commit(REPO, {"model.safetensors": safetensors_of(theirs["params"])})
    params, _, report = filled(f"hf://{REPO}")
    assert report.share == 1
    jax.tree.map(np.testing.assert_array_equal, params, theirs["params"])
    path, place = fetch(f"hf://{REPO}")
    assert place == Place(REPO, commit, "model.safetensors")
    assert path.is_file()


def test_a_revision_and_a_file_are_those_that_were_asked_for(hub):
    old, new = (safetensors_of(variables(seed)["params"]) for seed in (1, 2))
    first = hub.commit(REPO, {"a/old.safetensors": old, "model.safetensors": new})
    hub.commit(REPO, {"model.safetensors": old})
    hub.names[REPO, "v1"] = first
    for address, seed in (
        (f"hf://{REPO}", 1),
        (f"hf://{REPO}@v1", 2),
        (f"hf://{REPO}@{first}/a/old.safetensors", 1),
    ):
        params = filled(address)[0]
        jax.tree.map(np.testing.assert_array_equal, params, variables(seed)["params"])


def test_what_is_not_there_is_said(hub):
    hub.commit(REPO, {"README.md": b"x"})
    for address, words in (
        ("hf://someone/else", "names no repository"),
        (f"hf://{REPO}@v9", "names a revision"),
        (f"hf://{REPO}/other.safetensors", "holds no other.safetensors"),
        (f"hf://{REPO}", "holds no model.safetensors or pytorch_model.bin"),
    ):
        with pytest.raises(DataError, match=words):
            fetch(address)


def test_a_pickle_runs_nothing(hub, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "canary"), "w")

    hub.commit(REPO, {"pytorch_model.bin": pickle.dumps({"kernel": Evil()})})
    with pytest.raises(DataError):
        filled(f"hf://{REPO}")
    assert not (tmp_path / "canary").exists()


@BY_STAND_IN
def test_a_run_records_the_commit_and_keeps_to_it(hub, tmp_path):
    theirs = variables(7)
    commit = hub.commit(REPO, {"model.safetensors": safetensors_of(theirs["params"])})
    address, pinned = f"hf://{REPO}", f"hf://{REPO}@{commit}/model.safetensors"
    console = Lines()
    run = train(tiny(weights=address, steps=1), tmp_path / "run", console=console)
    assert run.record["weights"] == {address: pinned}
    assert run.record["rendered"]["weights"] == address
    assert any(line.startswith(f"weights of {pinned}: ") for line in console.lines)
    # the branch moves on; a run that was killed before its first checkpoint starts from the same
    hub.commit(REPO, {"model.safetensors": safetensors_of(variables(8)["params"])})
    before = Run(tmp_path / "run").state
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    again = train(tiny(weights=address, steps=1), tmp_path / "run", resume=True, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, before.params)


@BY_STAND_IN
def test_each_run_of_a_sweep_knows_its_weights(hub, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        content = safetensors_of(variables(seed)["params"])
        hub.commit(f"someone/{name}", {"model.safetensors": content})
    points = [{"weights": f"hf://someone/{name}"} for name in "ab"]
    run = train(tiny(steps=1), tmp_path / "run", points=points, quiet=True)
    assert set(run.record["weights"]) == {"hf://someone/a", "hf://someone/b"}
    assert set(run.replicas[0].record["weights"]) >= {"hf://someone/a"}


@pytest.mark.skipif(not HAVE, reason="huggingface_hub is not installed")
def test_the_environment_of_the_package_holds_and_the_cache_serves_offline(tmp_path):
    """In a process of its own, since the package reads its environment when it is imported."""
    program = (
        "import sys\nfrom jaxcnn.weights.hub import fetch\nfrom jaxcnn.errors import DataError\n"
        "try: print(fetch(sys.argv[1])[1])\nexcept DataError as error: print(error)\n"
    )

    def ask(address, **environment):
        import os

        command = [sys.executable, "-c", program, address]
        home = {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=os.environ | home | environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    hub = Hub()
    with serving(hub):
        commit = hub.commit(REPO, {"model.safetensors": safetensors_of(variables(1)["params"])})
        expected = f"hf://{REPO}@{commit}/model.safetensors"
        assert ask(f"hf://{REPO}", HF_ENDPOINT=hub.url) == expected
    asked = len(hub.asked)
    assert ask(f"hf://{REPO}", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1") == expected
    assert "not in the cache" in ask("hf://someone/else", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert len(hub.asked) == asked


def test_an_experiment_file_may_name_them(tmp_path):
    e = code.load("digits_lenet5", overrides=[f"weights=hf://{REPO}@v1"])
    assert e.weights == f"hf://{REPO}@v1"
    assert json.dumps(e.weights)
