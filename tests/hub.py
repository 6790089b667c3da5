"""Doubles of the Hugging Face hub: a server on this machine with the few endpoints that fetching
and sending use, and a stand-in for the package huggingface_hub where that is not installed.
"""

import base64
import hashlib
import json
import sys
import threading
import types
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories: {"owner/name": {commit: {file: bytes}}}, the newest commit last, and branches
    and tags {("owner/name", name): commit}.
    """

    def __init__(self):
        self.commits, self.names, self.asked = {}, {}, []

    def commit(self, repo, files, *, branch="main"):
        """A new commit of a branch; its identity, made of its content."""
        content = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())
        identity = hashlib.sha1(repr((repo, content)).encode()).hexdigest()
        self.commits.setdefault(repo, {})[identity] = dict(files)
        self.names[repo, branch] = identity
        return identity

    def find(self, repo, revision, file):
        """(status, error code of the hub, commit, bytes)."""
        if repo not in self.commits:
            return 404, "RepoNotFound", None, b""
        commit = self.names.get((repo, revision or "main"), revision)
        if commit not in self.commits[repo]:
            return 404, "RevisionNotFound", None, b""
        if file not in self.commits[repo][commit]:
            return 404, "EntryNotFound", commit, b""
        return 200, None, commit, self.commits[repo][commit][file]


def handler_of(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_HEAD(self):
            self._resolve(body=False)

        def do_GET(self):
            self._resolve(body=True)

        def _resolve(self, *, body):
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            repo, _, rest = path.lstrip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            if revision == "refs":
                kind, number, file = file.split("/", 2)
                revision = f"refs/{kind}/{number}"
            status, code, commit, content = hub.find(repo, revision, file)
            headers = {"Content-Length": str(len(content))}
            headers |= {"X-Error-Code": code} if code else {}
            headers |= {"X-Repo-Commit": commit} if commit else {}
            headers |= {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'} if not code else {}
            self._answer(status, content if body else b"", headers)

        def do_POST(self):
            path = urlsplit(self.path).path
            body = self._body()
            hub.asked.append((self.command, path))
            if path == "/api/repos/create":
                asked = json.loads(body)
                repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.created = asked
                self._json({"url": f"{hub.url}/{repo}", "id": repo})
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = json.loads(body)["files"]
                plain = {"uploadMode": "regular", "shouldIgnore": False}
                self._json({"files": [{"path": f["path"], **plain} for f in files]})
            elif "/commit/" in path:
                repo = path.removeprefix("/api/models/").partition("/commit/")[0]
                lines = [json.loads(line) for line in body.splitlines()]
                files = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                identity = hub.commit(repo, files)
                url = f"{hub.url}/{repo}/commit/{identity}"
                self._json({"commitUrl": url, "commitOid": identity, "success": True})
            else:
                self._answer(404, b"", {"Content-Length": "0"})

        def _body(self):
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _json(self, content):
            text = json.dumps(content).encode()
            headers = {"Content-Length": str(len(text)), "Content-Type": "application/json"}
            self._answer(200, text, headers)

        def _answer(self, status, content, headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    return Handler


@contextmanager
def serving(hub):
    """The hub behind `hub.url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def stand_in(hub, cache: Path):
    """A module that fetches as huggingface_hub does: same names, same errors, same layout of the
    cache, from a Hub in memory.
    """
    package = types.ModuleType("huggingface_hub")
    errors = types.ModuleType("huggingface_hub.errors")
    package.errors = errors

    def error(name, *bases):
        found = type(name, bases, {})
        setattr(errors, name, found)
        return found

    error("HFValidationError", ValueError)
    error("FileMetadataError", OSError)
    entry = error("EntryNotFoundError", Exception)
    error("LocalEntryNotFoundError", FileNotFoundError, entry)
    by_code = {
        "RepoNotFound": error("RepositoryNotFoundError", OSError),
        "RevisionNotFound": error("RevisionNotFoundError", OSError),
        "EntryNotFound": entry,
    }

    def hf_hub_download(repo, name, *, revision=None):
        _, code, commit, content = hub.find(repo, revision, name)
        if code:
            raise by_code[code](f"404: {repo} {name}")
        place = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return str(place)

    package.hf_hub_download = hf_hub_download
    return {"huggingface_hub": package, "huggingface_hub.errors": errors}


@contextmanager
def reachable(hub, cache: Path, patch, *, real: bool):
    """huggingface_hub, the package or the stand-in, fetches from this hub into `cache`."""
    if not real:
        for name, module in stand_in(hub, cache).items():
            patch.setitem(sys.modules, name, module)
        yield hub
        return
    from huggingface_hub import constants

    with serving(hub):
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield hub
