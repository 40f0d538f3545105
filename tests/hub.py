"""A stand-in for the Hugging Face hub on this machine: it keeps what is committed and gives it back, with the hub's own
addresses, so that the real client is what is tested."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_test"
SHA = "c" * 40


class Hub(ThreadingHTTPServer):
    """`files` by repository and path; whoever has not the token may read and not write."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.ranges: list[str] = []  # what was asked for of a file
        self.stalls_at: int | None = (
            None  # a range that begins here or later is answered when `goes_on` is set
        )
        self.goes_on = Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind, *rest = urlsplit(self.path).path.removeprefix("/api/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid username or password."}, 401)
        elif kind == "repos":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.files.setdefault(name, {})
            self.server.private[name] = asked.get("visibility") == "private"
            self.answer({"url": f"{self.server.address}/{name}"})
        elif kind == "validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif rest[2] == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            plain = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self.answer({"files": plain})
        elif rest[2] == "commit":
            name = "/".join(rest[:2])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[name][line["value"]["path"]] = base64.b64decode(
                        line["value"]["content"]
                    )
            self.answer({"commitUrl": f"{self.server.address}/{name}/commit/{SHA}", "commitOid": SHA})

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.strip("/").removeprefix("api/models/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        files = self.server.files.get(name)
        if files is None:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif rest and rest[0] == "tree":
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            self.answer(listed)
        elif rest and rest[0] == "resolve":
            content = files["/".join(rest[2:])]
            if asked := self.headers.get("Range"):
                self.send_range(content, asked)
                return
            self.send(content, 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": SHA})
        else:
            self.answer({"id": name, "sha": SHA, "siblings": [{"rfilename": path} for path in files]})

    do_HEAD = do_GET

    def send_range(self, content: bytes, asked: str) -> None:
        self.server.ranges.append(asked)
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        if self.server.stalls_at is not None and first >= self.server.stalls_at:
            self.server.goes_on.wait(60)
        self.send(content[first : last + 1], 206, {})

    def answer(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_hub() -> Iterator[Hub]:
    with Hub() as server:
        # It looks so often whether to stop; by default every half a second, which each test waits for
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The hub's client asks this address, for as long as the test runs."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
