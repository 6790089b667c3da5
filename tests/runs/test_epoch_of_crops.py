"""An epoch of 20,000 windows of photographs from tar archives, in a process that is killed three
times: every row is read for the step that it belongs to, once, and the state is that of a run in
peace."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

from jaxcnn.data.dataset import batch_indices
from jaxcnn.runs.open import open as open_run
from tests.conftest import ROOT

COUNT, BATCH = 20_000, 50
EXPERIMENT = """
import os
from dataclasses import dataclass
from functools import partial

import numpy as np
import optax

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.shards import Shards
from jaxcnn.tasks.classification import Classification
from tests.tiny import TinyNet


class Logged:
    streaming, arrays, drawn = True, None, True

    def __init__(self, source, log):
        self._source, self._log = source, log

    def __len__(self):
        return len(self._source)

    def take(self, indices, *, draws=None):
        if draws is not None and self._log:
            with open(self._log, "a") as file:
                file.write(" ".join(map(str, np.ravel(indices))) + "\\n")
        return self._source.take(indices, draws=draws)


@dataclass(frozen=True)
class Data(Shards):
    def open(self, split):
        source = super().open(split)
        return Logged(source, os.environ.get("ROWS")) if split == "train" else source


experiment = Experiment(
    model=TinyNet(num_classes=3),
    task=Classification(num_classes=3),
    data=Data(
        "FOLDER", (16, 16), channels=1, eval_path="FOLDER/../eval.tar", crop_area=(0.08, 1.0)
    ),
    optimizer=partial(optax.sgd, learning_rate=0.01),
    batch_size=50,
    epochs=1,
    eval_every=0.25,
    log_every=1,
)
"""


def pack(path, rows, photographs):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i in rows:
            photograph, file = photographs[i % 3], io.BytesIO()
            random = np.random.default_rng(i)
            top, left = (int(random.integers(side - 120)) for side in photograph.shape[:2])
            part = photograph[top : top + 90, left : left + 120]
            Image.fromarray(part).save(file, "JPEG")
            for ending, content in (("jpg", file.getvalue()), ("cls", str(i % 3).encode())):
                member = tarfile.TarInfo(f"{i:06d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def start(folder, *words, **environment):
    words = ("train", *map(str, words), "--quiet", "--no-report")
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen([sys.executable, str(ROOT / "launch.py"), *words], cwd=folder, env=env)


def steps_of(run) -> list[int]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record["step"] for record in records if record.get("kind") == "train"]


@pytest.mark.slow
def test_an_epoch_that_is_killed_sees_each_row_once(tmp_path, monkeypatch):
    data = pytest.importorskip("skimage.data", reason="needs scikit-image's photographs")
    photographs = [data.astronaut(), data.coffee(), data.chelsea()]
    for first in range(0, COUNT, 2000):
        name = f"{first // 2000:02d}.tar"
        pack(tmp_path / "train" / name, range(first, first + 2000), photographs)
    pack(tmp_path / "eval.tar", range(COUNT, COUNT + 60), photographs)
    (tmp_path / "crops.py").write_text(EXPERIMENT.replace("FOLDER", str(tmp_path / "train")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    killed, peace, log = tmp_path / "killed", tmp_path / "peace", tmp_path / "rows.txt"
    assert start(tmp_path, "crops.py", "--run-dir", peace).wait(600) == 0
    process = start(tmp_path, "crops.py", "--run-dir", killed, ROWS=str(log))
    for limit in (60, 170, 310):
        while process.poll() is None and max(steps_of(killed), default=0) < limit:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process = start(tmp_path, "--resume", killed, ROWS=str(log))
    assert process.wait(600) == 0

    steps = COUNT // BATCH
    assert sorted(steps_of(killed)) == list(range(1, steps + 1))
    belong = {
        tuple(batch_indices(0, step, size=COUNT, batch_size=BATCH)): step for step in range(steps)
    }
    read = [belong[tuple(map(int, line.split()))] for line in log.read_text().splitlines()]
    assert set(read) == set(range(steps))  # and those of steps that were lost were read again
    seen = np.concatenate(list(belong))
    np.testing.assert_array_equal(np.sort(seen), np.arange(COUNT))
    ours, theirs = (open_run(run).summary["state_sha256"] for run in (killed, peace))
    assert ours == theirs
