"""A hub on this machine: what the real client asks for (metadata, ranges), and every kind of trouble."""

import hashlib
import http.server
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


class Hub(http.server.ThreadingHTTPServer):
    """Files by `OWNER/REPOSITORY:PATH`; what is not there is answered as the real hub does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.promised: dict[str, str] = {}  # sha256 to say instead of the true one
        self.cuts: list[tuple[str, int]] = []  # how the next transfers end, and after how many bytes
        self.closed = False  # whether transfers are answered with status 503
        self.asked: list[tuple[str, str, str]] = []  # method, file, range

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def transfers(self) -> list[tuple[str, str]]:
        return [(file, ranged) for method, file, ranged in self.asked if method == "GET"]


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        repository, _, path = self.path[1:].partition("/resolve/main/")
        name = f"{repository}:{path}"
        self.server.asked.append((self.command, name, self.headers.get("Range", "")))
        if name not in self.server.files:
            known = any(file.startswith(f"{repository}:") for file in self.server.files)
            status, code = (404, "EntryNotFound") if known else (401, "RepoNotFound")
            self.head(status, {"X-Error-Code": code}, 0)
            return
        if with_body and self.server.closed:
            self.head(503, {}, 0)
            return
        body = self.server.files[name]
        digest = self.server.promised.get(name, hashlib.sha256(body).hexdigest())
        small = path.endswith(".json")  # kept in git, where the tag is no sha256
        headers = {"ETag": f'"{digest[:40] if small else digest}"', "X-Repo-Commit": "c" * 40}
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        self.head(206 if begin else 200, headers, len(body) - begin)
        if with_body:
            self.send(body[begin:], path)

    def head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()

    def send(self, body: bytes, path: str) -> None:
        kind, count = self.server.cuts.pop(0) if self.server.cuts and path[-4:] != "json" else ("", len(body))
        self.wfile.write(body[:count])
        self.wfile.flush()
        if kind:
            self.close_connection = True
        if kind == "reset":  # what a router that forgot the connection does
            threading.Event().wait(0.3)  # so that what was sent is read before
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@pytest.fixture
def hub(cache: Path) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for weights of a user who is online and has none; only this machine can be reached."""
    for name in ("FACERESTORE_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "FACERESTORE_WEIGHTS", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path / "facerestore" / "weights"
