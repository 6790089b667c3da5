"""The page and its endpoint: the answers of `predict`, in batches; what is no picture, too large or
asked by another site's page is refused, and the server goes on.
"""

import base64
import hashlib
import http.client
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlencode

import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, ResourceError
from jaxcnn.inspect.explained import MAPS
from jaxcnn.runs import gathering
from jaxcnn.runs.answers import as_json
from jaxcnn.runs.code import load
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.question import Question
from jaxcnn.runs.serving import Server
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.tasks.task import BaseTask
from tests.conftest import ROOT
from tests.tiny import arrays, fit, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "run"
    fit(tiny(steps=2), folder)
    return folder


def started(run, **options):
    server = Server(run, port=0, **options)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def server(folder):
    server = started(open_run(folder, tiny(steps=2)), most_bytes=100_000, batch_size=4)
    yield server
    server.shutdown()
    server.server_close()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def ask(server, path="/predict", body=b"", *, method="POST", **headers):
    """(status, JSON) of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request(method, path, body if method == "POST" else None, headers)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, json.loads(content)


PICTURES = [png(image[..., 0]) for image in arrays(24, seed=5)["image"]]


def near(a, b):
    """Whether answers are equal but for rounding: XLA may round a row by its place in the batch,
    and which place it gets depends on who else asks.
    """
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(near(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(near, a, b))
    return a == pytest.approx(b, abs=1e-6) if isinstance(a, float) else a == b


def test_answers_are_those_of_predict_one_by_one_and_at_once(server, folder, tmp_path):
    for i, picture in enumerate(PICTURES):
        (tmp_path / f"{i:02}.png").write_bytes(picture)
    rows = as_json(open_run(folder, tiny(steps=2)).predict(tmp_path, batch_size=4))
    expected = [{key: value for key, value in row.items() if key != "path"} for row in rows]
    status, alone = ask(server, body=PICTURES[0])
    assert status == 200
    assert near(alone, expected[0])
    server.answers.batches.sizes.clear()
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda picture: ask(server, body=picture), PICTURES))
    assert {status for status, _ in found} == {200}
    assert near([row for _, row in found], expected)
    assert sum(server.answers.batches.sizes) == len(PICTURES)
    assert 1 < max(server.answers.batches.sizes) <= 4


def test_an_error_is_that_of_whoever_asked_and_the_next_are_answered(monkeypatch):
    monkeypatch.setattr(gathering, "ANSWER_SECONDS", 10.0)
    batches = gathering.Batches(lambda items: [12 // item for item in items], most=2)
    with pytest.raises(ZeroDivisionError):
        batches.of(0)
    assert (batches.of(3), batches.sizes) == (4, [1, 1])


def drawing_of(answer):
    head, _, data = answer["drawing"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as drawing:
        return np.asarray(drawing)


@pytest.mark.parametrize("asked", [{}, {"method": "layercam", "target": "1"}])
def test_explanations_are_those_of_explain_one_by_one_and_at_once(server, folder, tmp_path, asked):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, picture in zip(paths, PICTURES, strict=False):
        path.write_bytes(picture)
    question = Question(**{"method": "gradcam", **asked})
    explainer = open_run(folder, tiny(steps=2)).explainer(question, batch_size=4)
    rows, drawings = zip(*explainer.files(paths), strict=True)
    rows = [{key: value for key, value in row.items() if key != "path"} for row in rows]
    place = "/explain?" + urlencode(asked)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda path: ask(server, place, path.read_bytes()), paths))
    for (status, answer), row, drawing in zip(found, as_json(rows), drawings, strict=True):
        assert status == 200
        np.testing.assert_array_equal(drawing_of(answer), np.asarray(drawing()))
        assert {key: answer[key] for key in row} == row
    _, batches = server.explanations._asked(question.method)
    assert sum(batches.sizes) == len(paths)
    assert max(batches.sizes) > 1


def test_a_heat_map_comes_as_a_picture_alone_and_of_a_large_one_no_larger(server):
    noise = np.random.default_rng(0).integers(0, 255, (20, 2000, 1)).astype(np.uint8)
    wide = png(np.repeat(noise[..., 0], 3, 0) // 200 * 200)
    request = urllib.request.Request(server.url + "explain", wide, {"Accept": "image/png"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.headers["Content-Type"] == "image/png"
        with Image.open(io.BytesIO(reply.read())) as drawing:
            assert drawing.width / drawing.height == pytest.approx(2000 / 60, rel=0.03)
            assert np.asarray(drawing).shape[-1] == 3


def large_png():
    """A small file that says it is of 20,000 x 10,000 pixels."""
    head = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


@pytest.mark.parametrize(
    "request_, status, says",
    [
        ({"body": b"<!doctype html><script>alert(1)</script>"}, 415, "cannot be read as an image"),
        ({"body": b""}, 415, "cannot be read as an image"),
        ({"body": PICTURES[0][:40]}, 415, "cannot be read as an image"),
        ({"body": large_png()}, 415, "200000000 pixels|at most .* pixels"),
        ({"body": b"x" * 100_001}, 413, "100001 bytes; at most 100000"),
        ({"body": b"x" * 100_000}, 415, "cannot be read as an image"),  # so many are taken
        ({"path": "/explain?method=gradcma", "body": PICTURES[0]}, 400, "did you mean 'gradcam'"),
        ({"path": "/explain?method=dream", "body": PICTURES[0]}, 400, "must be one of gradcam"),
        ({"path": "/explain?target=cat", "body": PICTURES[0]}, 400, "'cat': no class"),
        ({"path": "/explain?target=3", "body": PICTURES[0]}, 400, "numbered 0 to 2"),
        ({"path": "/explain?target=--3", "body": PICTURES[0]}, 400, "'--3': no class"),
        ({"path": f"/explain?target={'3' * 5000}", "body": PICTURES[0]}, 400, "no class"),
        ({"path": "/explain?layer=a", "body": PICTURES[0]}, 400, "no option layer"),
        ({"path": "/explain", "body": b"<html>"}, 415, "cannot be read as an image"),
        ({"path": "/explain", "body": large_png()}, 415, "200000000 pixels|at most .* pixels"),
        ({"path": "/explain", "body": b"x" * 100_001}, 413, "100001 bytes; at most 100000"),
        ({"path": "/explain", "method": "GET"}, 405, "POST /explain"),
        ({"path": "/predictions"}, 404, "POST /predict"),
        ({"path": "/../run.json", "method": "GET"}, 404, "POST /predict"),
        ({"method": "GET"}, 405, "POST /predict"),
        ({"path": "/"}, 405, "GET /"),
        ({"body": PICTURES[0], "Origin": "http://evil.example"}, 403, "another site"),
        ({"body": PICTURES[0], "Host": "evil.example"}, 403, "answers to localhost"),
        ({"body": PICTURES[0], "Content-Length": "many"}, 411, "Content-Length"),
    ],
)
def test_what_is_refused_ends_nothing(server, request_, status, says):
    found, answer = ask(server, **request_)
    assert found == status
    assert re.search(says, answer["error"])
    assert ask(server, body=PICTURES[0])[0] == 200


def test_a_number_that_is_not_finite_is_null(server, monkeypatch):
    row = {"top": [{"name": "a", "probability": np.float32("nan")}]}
    monkeypatch.setattr(server.answers, "of", lambda picture: row)
    status, answer = ask(server, body=PICTURES[0])
    assert (status, answer) == (200, {"top": [{"name": "a", "probability": None}]})


def test_an_address_that_is_none_is_answered(server):
    port = server.server_address[1]
    with socket.create_connection(("127.0.0.1", port)) as visitor:
        visitor.sendall(f"GET http://[ HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
        reply = http.client.HTTPResponse(visitor)
        reply.begin()
        assert reply.status == 400
        assert json.loads(reply.read()) == {"error": "no address: Invalid IPv6 URL"}


def test_visitors_who_leave_or_say_nothing_hold_up_nobody(server):
    address = ("127.0.0.1", server.server_address[1])
    silent = socket.create_connection(address)
    for sent in (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\nab",
        b"",
    ):
        with socket.create_connection(address) as visitor:
            visitor.sendall(sent)
    assert ask(server, body=PICTURES[0])[0] == 200
    silent.close()


def test_the_page_asks_nobody_else(server):
    with urllib.request.urlopen(server.url) as reply:
        page, policy = reply.read().decode(), reply.headers["Content-Security-Policy"]
    assert not re.search(r"(https?:)?//[a-z]|@import|url\(", page)
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):  # what the browser will run is what the policy names
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"innerHTML|document\.write|eval\(| on[a-z]+=", page)
    status, about = ask(server, "/run", method="GET")
    assert status == 200
    assert about["size"] == [8, 8]
    assert about["channels"] == 1
    assert about["explain"] == {"methods": list(MAPS), "names": ["0", "1", "2"], "why_not": ""}


class Silent(Segmentation):
    """A task that has no scores to explain."""

    explained = BaseTask.explained


class Shades(nn.Module):
    """Two classes for each pixel, of any size."""

    @nn.compact
    def __call__(self, image, *, train):
        return nn.Conv(2, (1, 1))(image)


def test_what_can_be_drawn_is_drawn_in_the_size_of_the_picture(tmp_path):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
    split = {"image": image, "segmentation": (image[..., 0] > 127).astype(np.int32)}
    e = Experiment(
        model=Shades(), task=Silent(num_classes=2), data=Arrays(train=split, eval=split),
        optimizer=partial(optax.sgd, learning_rate=0.1), batch_size=4, steps=2,
    )  # fmt: skip
    fit(e, tmp_path / "run")
    server = started(open_run(tmp_path / "run", e))
    status, answer = ask(server, "/predict?drawing=1", png(image[0, ..., 0]))
    _, about = ask(server, "/run", method="GET")
    refused = ask(server, "/explain", png(image[0, ..., 0]))
    server.shutdown()
    server.server_close()
    assert status == 200
    drawing = drawing_of(answer)
    assert drawing.shape[0] == drawing.shape[1]
    assert drawing.shape[0] % 8 == 0
    assert about["explain"]["methods"] == []
    assert "Silent has no score" in about["explain"]["why_not"]
    assert refused[0] == 400
    assert "Silent has no score" in refused[1]["error"]
    assert sum(answer["segmentation"].values()) == pytest.approx(1)


def test_what_cannot_be_served_is_refused_at_once(server, folder, tmp_path):
    run = open_run(folder, tiny(steps=2))
    port = server.server_address[1]
    with pytest.raises(ResourceError, match=rf"127\.0\.0\.1:{port}.*--port"):
        Server(run, port=port)
    with pytest.raises(ConfigError, match="port=70000"):
        Server(run, port=70_000)
    fit(load("xor_mlp", overrides=["steps=2"]), tmp_path / "numbers")
    with pytest.raises(ConfigError, match="pictures will not do"):
        Server(open_run(tmp_path / "numbers"), port=0)


# as in a terminal; a shell's job in the background ignores it
HEARS_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxcnn.commands._main import main
sys.exit(main())
"""


def test_the_verb_says_where_and_ends_with_ctrl_c(tmp_path):
    launch = [sys.executable, str(ROOT / "launch.py")]
    made = [*launch, "train", "digits_lenet5", "steps=2", "--run-dir", str(tmp_path / "run")]
    assert subprocess.run([*made, "--quiet"], cwd=ROOT).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, "serve", str(tmp_path / "run"), "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        picture = png(np.zeros((40, 30), np.uint8))
        request = urllib.request.Request(url + "predict", data=picture)
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert len(json.loads(reply.read())["top"]) >= 1
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
