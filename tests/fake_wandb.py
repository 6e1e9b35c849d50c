"""A W&B server of one's own, on this machine: it takes runs as wandb 0.31 sends them, and gives nothing back but that.

with FakeWandb() as server:
    subprocess.run(..., env=os.environ | server.env(tmp_path))
server.runs["RUN_ID"].history
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4
USER = "somebody"


@dataclass
class SentRun:
    """``history`` has the lines by number, so that lines sent again stand where they stood."""

    sent: dict[str, Any]
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: int = 0
    exit_codes: list[int] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def tail(self) -> list[str]:
        return [json.dumps(self.history[max(self.history)])] if self.history else []


class FakeWandb:
    def __init__(self) -> None:
        self.runs: dict[str, SentRun] = {}
        self.artifact_files: dict[str, bytes] = {}

    def __enter__(self) -> FakeWandb:
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        operation = re.search(r"(?:query|mutation)\s+(\w+)", query)[1]
        project = {"id": "P", "name": variables.get("project"), "entity": {"id": "E", "name": USER}}
        if operation in ("Viewer", "GetViewer"):
            user = {"id": "U", "name": USER, "username": USER, "entity": USER, "email": "", "admin": False}
            lists = {"apiKeys": {"edges": []}, "teams": {"edges": []}}
            return {"viewer": {**user, **lists, "flags": "{}", "deletedAt": None}}
        if operation == "UpsertBucket":
            name = variables["name"]
            inserted = name not in self.runs
            run = self.runs.setdefault(name, SentRun({}))
            run.sent |= {key: value for key, value in variables.items() if value is not None}
            bucket = {"id": name, "name": name, "displayName": run.sent["displayName"], "project": project}
            bucket |= {"historyLineCount": len(run.history), "config": run.sent["config"]}
            return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}
        if operation == "RunResumeStatus":
            return {"model": {**project, "bucket": self._bucket(variables["name"])}}
        if operation == "CreateRunFiles":
            run_id = variables["run"]
            links = [{"name": name, "uploadUrl": f"{self.url}/{run_id}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": run_id, "uploadHeaders": [], "files": links}}
        if "Artifact" in operation:
            return self._artifact(operation, variables)
        return {}

    def _artifact(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        def place(name: str) -> dict[str, Any]:
            link = {"uploadUrl": f"{self.url}/artifact/{name}", "uploadHeaders": [], "uploadMultipartUrls": None}
            return {"id": name, "name": name, "displayName": name, "storagePath": name, "artifact": {"id": "A"}, **link}

        if operation == "CreateArtifactFiles":
            edges = [{"node": place(file["name"])} for file in variables["input"]["artifactFiles"]]
            found: dict[str, Any] = {"files": {"edges": edges}}
        elif operation.endswith("Manifest"):
            found = {"artifactManifest": {"id": "M", "file": place("manifest")}}
        else:
            artifact = {"id": "A", "state": "PENDING", "digest": "", "artifactSequence": {"latestArtifact": None}}
            found = {"artifact": artifact}
        return {operation[0].lower() + operation[1:]: found}

    def _bucket(self, name: str) -> dict[str, Any] | None:
        run = self.runs.get(name)
        if run is None:
            return None
        lines = {"historyLineCount": len(run.history), "eventsLineCount": run.events, "logLineCount": 0}
        tails = {"historyTail": json.dumps(run.tail), "eventsTail": "[]", "summaryMetrics": "{}"}
        state = {"displayName": run.sent["displayName"], "config": run.sent["config"], "wandbConfig": '{"t": 1}'}
        return {"name": name, "tags": [], "notes": None, **lines, **tails, **state}

    def stream(self, name: str, body: dict[str, Any]) -> None:
        run = self.runs[name]
        for file, part in body.get("files", {}).items():
            if file == "wandb-history.jsonl":
                run.history |= {part["offset"] + i: json.loads(line) for i, line in enumerate(part["content"])}
            elif file == "wandb-events.jsonl":
                run.events = part["offset"] + len(part["content"])
        if body.get("complete"):
            run.exit_codes.append(body["exitcode"])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FakeWandb

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            answer = {"data": self.server_state.answer(asked["query"], asked.get("variables") or {})}
        elif found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.server_state.stream(found[1], json.loads(body))
        self._reply(json.dumps(answer).encode())

    def do_PUT(self) -> None:
        place, file = self.path.lstrip("/").split("/", 1)
        state = self.server_state
        files = state.artifact_files if place == "artifact" else state.runs[place].files
        files[file] = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(b"")

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
