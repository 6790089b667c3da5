"""A run's model behind a page and a JSON endpoint, for one's own machine: `serve(run)`.

    GET  /          a page on which a picture is dropped or drawn
    GET  /run       {"experiment", "task", "size", "channels", "names"} of the model; "explain":
                    {"methods", "names" of what can be explained, "why_not" other methods}
    POST /predict   the bytes of a picture -> what `predict --json` says of it; with ?drawing=1 also
                    "drawing", a PNG as data: URI, where there is something to draw
    POST /explain   the bytes of a picture -> what `explain --json` says of it, with "drawing", its
                    heat map; ?method=layercam (default: the first of "methods"), ?target=cat
                    (default: the predicted class). Asked to Accept: image/png, the PNG alone

A number that is not finite is null. Answers of other kinds are {"error": sentence} with a status
of 400 to 500: 400 for a method, a class or an option that is not there, 415 for what is no picture.
Pictures that come at the same time are predicted in one batch. The page loads nothing from anywhere
else; requests that other sites' pages make (by their Origin, or by a name that they had resolved to
this machine) are refused.
"""

import base64
import hashlib
import json
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import numpy as np

from jaxcnn.core.rendering import without_nan
from jaxcnn.errors import ConfigError, DataError, JaxcnnError, ResourceError
from jaxcnn.runs.answers import as_json
from jaxcnn.runs.gathering import Answers, Explanations, as_image, png
from jaxcnn.runs.open import Run

IDLE_SECONDS = 30.0  # a client that sends nothing is let go
LOCAL = ("localhost", "127.0.0.1")


class Server(ThreadingHTTPServer):
    """Serves one run on `host`:`port` (0: any free one) until it is shut down.

    most_bytes: of a request. Errors: ConfigError for a model that takes no picture; ResourceError
    where the port is in use or not to be had.
    """

    daemon_threads = True

    def __init__(
        self,
        run: Run,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        most_bytes: int = 20 * 2**20,
        batch_size: int = 8,
    ):
        if not 0 <= port <= 65535:
            raise ConfigError(f"port={port}: must lie in 0 to 65535 (0: any that is free)")
        if most_bytes < 1:
            raise ConfigError(f"most_bytes={most_bytes}: must be at least 1")
        predictor = run.predictor(batch_size=batch_size)
        self.answers = Answers(predictor, batch_size=batch_size)
        self.explanations = Explanations(run, self.answers, batch_size=batch_size)
        self.most_bytes, self.host = most_bytes, host
        size = self.answers.size
        self.about = {
            "experiment": run.record.get("experiment", ""),
            "task": type(run.standalone().task).__name__,
            "size": list(size) if size else None,
            "channels": self.answers.channels,
            "names": list(run.data.label_names),
            "explain": {
                "methods": list(self.explanations.methods),
                "names": list(self.explanations.names),
                "why_not": self.explanations.why_not,
            },
        }
        self.page = files("jaxcnn.runs").joinpath("serving.html").read_text(encoding="utf-8")
        warm = np.zeros((*(size or (64, 64)), self.answers.channels), np.uint8)
        self.answers.of(png(as_image(warm)))  # compiled before the first visitor comes
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ResourceError(
                f"{host}:{port}: cannot be served ({error.strerror or error}); choose another port "
                "by --port, 0 for any that is free"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, text: str):
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = IDLE_SECONDS
    server_version, sys_version = "jaxcnn", ""

    def do_GET(self) -> None:
        self._answer({"/": self._page, "/run": self._run})

    def do_POST(self) -> None:
        self._answer({"/predict": self._predict, "/explain": self._explain})

    def _answer(self, paths: Any) -> None:
        try:
            self._check_origin()
            place = self._place()
            if place.path not in paths:
                wrong = place.path in ("/", "/run", "/predict", "/explain")
                status = HTTPStatus.METHOD_NOT_ALLOWED if wrong else HTTPStatus.NOT_FOUND
                raise _Refused(status, "there are GET /, GET /run, POST /predict, POST /explain")
            paths[place.path](parse_qs(place.query))
        except _Refused as error:
            self._send_json(error.status, {"error": str(error)})
        except DataError as error:
            self._send_json(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": str(error)})
        except (JaxcnnError, TimeoutError, RuntimeError, MemoryError) as error:
            text = str(error) or type(error).__name__
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": text})

    def _place(self) -> SplitResult:
        try:
            return urlsplit(self.path)
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"no address: {error}") from error

    def _check_origin(self) -> None:
        """Only the page itself, or a program, may ask."""
        port = self.server.server_address[1]
        hosts = [f"{host}:{port}" for host in LOCAL]
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if self.server.host in LOCAL and host not in hosts:
            raise _Refused(HTTPStatus.FORBIDDEN, f"this server answers to {', '.join(LOCAL)} only")
        if origin is not None and origin != f"http://{host}":
            raise _Refused(HTTPStatus.FORBIDDEN, "another site's page asks; only this one may")

    def _page(self, query: dict[str, list[str]]) -> None:
        self._send(HTTPStatus.OK, self.server.page.encode(), "text/html; charset=utf-8")

    def _run(self, query: dict[str, list[str]]) -> None:
        self._send_json(HTTPStatus.OK, self.server.about)

    def _predict(self, query: dict[str, list[str]]) -> None:
        picture = self._body()
        row = self.server.answers.of(picture)
        out = as_json({key: value for key, value in row.items() if key != "image"})
        drawing = self.server.answers.drawn(picture, row) if query.get("drawing") == ["1"] else None
        self._send_json(HTTPStatus.OK, out | ({"drawing": _uri(drawing)} if drawing else {}))

    def _explain(self, query: dict[str, list[str]]) -> None:
        picture = self._body()
        asked = {name: values[-1] for name, values in query.items()}
        if unknown := sorted(asked.keys() - {"method", "target"}):
            text = f"no option {', '.join(unknown)}; there are method and target"
            raise _Refused(HTTPStatus.BAD_REQUEST, text)
        try:
            row, drawing = self.server.explanations.of(picture, **asked)
        except ConfigError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        if "image/png" in self.headers.get("Accept", ""):
            self._send(HTTPStatus.OK, drawing, "image/png")
        else:
            self._send_json(HTTPStatus.OK, as_json(row) | {"drawing": _uri(drawing)})

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,15}", length):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "send the bytes and their Content-Length")
        if int(length) > self.server.most_bytes:
            self.close_connection = True
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{int(length)} bytes; at most {self.server.most_bytes} are taken",
            )
        return self.rfile.read(int(length))

    def _send_json(self, status: HTTPStatus, content: Any) -> None:
        self._send(status, json.dumps(without_nan(content)).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", _policy(self.server.page)),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: each visitor would be a line."""


def _policy(page: str) -> str:
    """What the page may do: its own script and style, by their digests, and asking this server."""
    parts = []
    for tag in ("script", "style"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in inside]
        parts.append(f"{tag}-src " + " ".join(f"'sha256-{digest.decode()}'" for digest in hashes))
    return f"default-src 'none'; connect-src 'self'; img-src data: blob:; {'; '.join(parts)}"


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
