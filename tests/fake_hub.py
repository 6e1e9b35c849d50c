"""A fake Hugging Face Hub: a web server on this machine that gives the same answers as the real one.

    with FakeHub({("dataset", "owner/name"): {"data.jsonl": b"..."}}) as hub:
        subprocess.run(..., env=os.environ | hub.env(tmp_path / "hf"))

It supports the requests with which huggingface_hub 2.4 lists and downloads files: a repository's description, and HEAD
and GET of its files with their digests, ranges and, for large files, a redirect to another host. Xet is not supported.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

Repo = tuple[str, str]  # ("model" or "dataset", "owner/name")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/revision/([^/]+))?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Request:
    method: str
    path: str  # decoded
    range: str | None
    token: str | None


@dataclass
class FakeHub:
    """All fields may be changed while it runs; a change of ``files`` makes a new commit of `main`."""

    files: dict[Repo, dict[str, bytes]]
    lfs_from: int = 1024  # bytes from which a file is in LFS
    branches: tuple[str, ...] = ("main",)
    break_after: int | None = None  # bytes after which a download's connection breaks
    breaks: int | None = None  # how many more times it breaks; None: always
    hold_after: int | None = None  # bytes after which a download stalls until the client disconnects
    wrong: set[str] = field(default_factory=set)  # names of files whose last byte is wrong
    answers: dict[Repo, tuple[int, str]] = field(
        default_factory=dict
    )  # status and error code to return instead of a file
    token: str | None = None  # required in every request
    page: bytes | None = None  # an HTML page to return for every request, like a network's login page
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> FakeHub:
        self._commits: dict[str, dict[str, bytes]] = {}
        self._contents: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def env(self, hf_home: Path) -> dict[str, str]:
        """Environment variables for a process that is to use this server as the Hub."""
        here = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(hf_home), "HF_HUB_DISABLE_TELEMETRY": "1", **here}

    def commit(self, repo: Repo) -> str:
        """The commit of `main`."""
        parts = [f"{name}\0{hashlib.sha256(data).hexdigest()}\n" for name, data in sorted(self.files[repo].items())]
        commit = hashlib.sha1("".join([*repo, *parts]).encode()).hexdigest()
        self._commits[commit] = dict(self.files[repo])
        return commit

    def asked(self, part: str, method: str = "GET") -> list[Request]:
        """The requests whose path contains ``part``."""
        return [request for request in self.requests if request.method == method and part in request.path]

    @property
    def downloads(self) -> list[Request]:
        return [request for request in self.asked("/resolve/") if not self._redirects(request)] + self.asked("/cdn/")

    def _redirects(self, request: Request) -> bool:
        found = RESOLVE.fullmatch(request.path)
        data = self._commits.get(found[3], {}).get(found[4]) if found else None
        return data is not None and len(data) >= self.lfs_from


def git_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, unquote(path), self.headers.get("Range"), token))
        if self.hub.page is not None:
            self._send(200, {"Content-Type": "text/html"}, self.hub.page)
        elif path.startswith("/cdn/"):
            self._send_file(self.hub._contents[path.removeprefix("/cdn/")], {})
        elif self.hub.token is not None and token != self.hub.token:
            self._refuse(401, "RepoNotFound")
        elif found := API.fullmatch(path):
            self._describe(("model" if found[1] == "models" else "dataset", found[2]), unquote(found[3] or "main"))
        elif found := RESOLVE.fullmatch(path):
            self._resolve(("dataset" if found[1] else "model", found[2]), unquote(found[3]), unquote(found[4]))
        else:
            self._refuse(404, "")

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": code}, b'{"error": "refused"}')

    def _send(self, status: int, headers: dict[str, Any], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _commit_of(self, repo: Repo, revision: str) -> str | None:
        """The commit of ``revision``; None if there is none, after an error has been sent."""
        if repo not in self.hub.files:
            self._refuse(401, "RepoNotFound")  # the Hub gives the same answer for private and for missing repositories
            return None
        commit = self.hub.commit(repo)
        if revision in self.hub.branches:
            return commit
        if revision not in self.hub._commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return revision

    def _describe(self, repo: Repo, revision: str) -> None:
        if (commit := self._commit_of(repo, revision)) is None:
            return
        siblings = []
        for name, data in sorted(self.hub._commits[commit].items()):
            digest = hashlib.sha256(data).hexdigest()
            lfs = {"lfs": {"sha256": digest, "size": len(data), "pointerSize": 130}}
            known = {"rfilename": name, "size": len(data), "blobId": git_id(data)}
            siblings.append(known | (lfs if len(data) >= self.hub.lfs_from else {}))
        described = {"_id": "0", "id": repo[1], "sha": commit, "private": False, "tags": [], "siblings": siblings}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(described).encode())

    def _resolve(self, repo: Repo, revision: str, name: str) -> None:
        if repo in self.hub.answers:
            self._refuse(*self.hub.answers[repo])
            return
        if (commit := self._commit_of(repo, revision)) is None:
            return
        data = self.hub._commits[commit].get(name)
        if data is None:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"")
            return
        served = data[:-1] + bytes([data[-1] ^ 1]) if name in self.hub.wrong else data
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_id(data)}"', "Accept-Ranges": "bytes"}
        if len(data) < self.hub.lfs_from:
            self._send_file(served, headers)
            return
        digest = hashlib.sha256(data).hexdigest()
        self.hub._contents[digest] = served
        # To a client, `localhost` is another host than `127.0.0.1`, like the Hub's storage.
        location = {"Location": f"http://localhost:{self.hub.port}/cdn/{quote(digest)}"}
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": len(data)}
        self._send(302, headers | location, b"")

    def _send_file(self, data: bytes, headers: dict[str, Any]) -> None:
        status, start = 200, 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            status, start = 206, int(found[1])
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        if start >= len(data) > 0:
            self._send(416, {}, b"")
            return
        body = data[start:]
        stop = self.hub.break_after if self.hub.breaks != 0 else None
        breaks = stop is not None and stop < len(body)
        holds = not breaks and self.hub.hold_after is not None and self.hub.hold_after < len(body)
        if self.command == "HEAD" or not (breaks or holds):
            self._send(status, headers, body)
            return
        if breaks and self.hub.breaks is not None:
            self.hub.breaks -= 1
        self._send(status, headers | {"Content-Length": len(body)}, body[: stop if breaks else self.hub.hold_after])
        self.wfile.flush()
        self.close_connection = True
        while holds and self.hub.hold_after is not None:
            time.sleep(0.02)
