"""README's commands do what it says, as they are written and in its order."""

import http.client
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.docs import pages
from tests.rounding import quick_environment

README = ROOT / "README.md"
MINUTES = 20  # of a command, at most, beside other work
EXTRA = re.compile(r"pip install -e '\.\[(\w+)\]'")
# what is not run, and why
LEFT_OUT = {
    "make ": "installs from the network; what it runs then is run by itself",
    "python3 -m venv": "the environment of the tests stands for it",
    "pip install": "installs from the network; for a GPU and a TPU, which are not here",
    "hf://OWNER/NAME": "a placeholder: nobody has published there",
}


def why_not(command):
    """Why a command of README is not run here, or None."""
    for words, reason in LEFT_OUT.items():
        if words in command.partition("#")[0]:
            return reason
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for extra in EXTRA.findall(command):
        for requirement in extras[extra]:
            package = re.match(r"[\w.-]+", requirement)[0]
            try:
                version(package)
            except PackageNotFoundError:
                return f"{package} is not installed, which jaxcnn[{extra}] brings"
    return None


COMMANDS = [(*found, why_not(found[1])) for found in pages.shell(README)]


@pytest.mark.parametrize("line, command, reason", [c for c in COMMANDS if c[2]])
def test_what_is_left_out(line, command, reason):
    """So that a report of the tests says which commands no test has run."""
    pytest.skip(f"README.md, line {line}: {command.partition('  ')[0]}: {reason}")


def photographs(folder):
    """photos/ with a folder for each of three colours, and new/ with one more picture of each."""
    (folder / "new").mkdir()
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("blue", "green", "red")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 60, (24 + i, 40, 3), np.uint8)
            pixels[..., 2 - channel] += 150
            place = folder / (f"photos/{name}/{i}.jpg" if i < 11 else f"new/{name}.jpg")
            Image.fromarray(pixels).save(place)


@pytest.fixture
def clone(tmp_path):
    """(a folder with what a clone holds, and README's own photographs and file; environment in
    which `python` and `jaxcnn` are those of the clone; HOME is empty).
    """
    folder = tmp_path / "clone"
    own_runs = str(ROOT), "runs"
    shutil.copytree(
        ROOT, folder,
        ignore=lambda where, names: [
            n for n in names if n[0] == "." or n == "__pycache__" or (where, n) == own_runs
        ],
    )  # fmt: skip
    photographs(folder)
    for name, code in pages.saved(README).items():
        (folder / name).write_text(code)
    home = tmp_path / "home"
    home.mkdir()
    before = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    own = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(folder), *before]),
        "BROWSER": "sh -c 'echo %s > opened'",
    }
    return folder, os.environ | own


def serve(command, folder, env):
    """Start it, have it answer one request, end it as Ctrl-C does."""
    # where these tests ignore it, as in a shell's background, their children would, too
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        shlex.split(command, comments=True), cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        address = re.search(r"http://(\S+?)/", process.stdout.readline())[1]
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", "/predict", (folder / "docs/images/digit.png").read_bytes())
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        assert (folder / "opened").read_text().strip() == f"http://{address}/"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_the_commands_run_as_written(clone):
    folder, env = clone
    done = []
    for line, command, reason in COMMANDS:
        if reason:
            continue
        if " serve " in command:
            serve(command, folder, env)
        else:
            process = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=env, timeout=60 * MINUTES,
                capture_output=True, text=True,
            )  # fmt: skip
            assert process.returncode == 0, (line, command, process.stderr[-3000:])
        done.append(command.split()[2])
    assert {"check", "train", "serve", "compare", "publish"} <= set(done)
    for made in ("runs/first/report.html", "runs/second/summary.json", "digits/README.md"):
        assert (folder / made).is_file(), made
    assert list((folder / "runs/first/explanations").iterdir())


def test_the_way_from_own_photographs_to_a_prediction(tmp_path):
    """README's file and its commands, on small pictures of three colours and for fewer steps."""
    (tmp_path / "mine.py").write_text(pages.saved(README)["mine.py"])
    photographs(tmp_path)
    code = """
from jaxcnn.commands._main import main
fewer = ["steps=6", "data.image_size=16,16", "batch_size=16"]
assert main(["train", "mine.py", "--run-dir", "runs/mine", *fewer, "--no-report"]) == 0
assert main(["predict", "runs/mine", "new/"]) == 0
"""
    quickly = quick_environment()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=quickly
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("blue", "green", "red"):
        assert f"{name}.jpg: {name}" in done.stdout, done.stdout[-500:]
