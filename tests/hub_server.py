"""A small Hub in this process: enough of its protocol for the real client to push and to fetch.

Repositories, branches and commits live in memory. Faults are switched on by attributes: a status
for every request or for the files, wrong bytes, a connection that drops half way, slow files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "other"}
PIPELINE_TAGS = {"feature-extraction", "image-classification", "other"}
MISSING = {"repo": "RepoNotFound", "revision": "RevisionNotFound", "file": "EntryNotFound"}


@dataclass
class Repo:
    """A repository: the files of every commit, and what the branches mean."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def find(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        text = f"{message}{len(self.commits)}{sorted(files)}"
        sha = hashlib.sha256(text.encode()).hexdigest()[:40]
        self.commits[sha] = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        self.branches[branch] = sha
        self.messages.append(message)
        return sha


@dataclass
class HubServer:
    """The server and its state."""

    token: str = "me"  # noqa: S105 (of nobody)
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    status: int = 0
    """Answer everything with it."""
    file_status: int = 0
    """Answer requests for files with it."""
    spoil: set[str] = field(default_factory=set)
    """Files whose bytes are wrong."""
    drop: int = 0
    """How many more downloads of tensors break off half way."""
    pause: float = 0.0
    """Seconds between pieces of a file of tensors."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, part: str) -> list[tuple[str, str, str]]:
        """Return method, path and range of the requests whose path holds ``part``."""
        return [request for request in self.requests if part in request[1]]

    @contextmanager
    def running(self) -> Iterator[HubServer]:
        hub = self

        class Bound(Handler):
            state = hub

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Bound)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def etag(name: str, data: bytes) -> str:
    """Return what the Hub calls a file: sha256 of a large one, the checksum of git of another."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def yaml_errors(content: str) -> list[str]:
    """Say what the Hub's validator would about the header of a README."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    header = yaml.safe_load(found[1]) if found else {}
    errors = []
    if header.get("license") not in LICENSES:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    if header.get("pipeline_tag") not in PIPELINE_TAGS:
        errors.append(f'"pipeline_tag" must be one of {sorted(PIPELINE_TAGS)}')
    for key in ("tags", "datasets", "metrics"):
        value = header.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            errors.append(f'"{key}" must be an array of texts')
    if not isinstance(header.get("library_name"), str):
        errors.append('"library_name" must be a text')
    return errors


class Handler(BaseHTTPRequestHandler):
    """One request."""

    state: HubServer

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((self.command, path, self.headers.get("Range", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self._chunks()
        if self.state.status:
            return self.answer(self.state.status, {"error": "a fault"})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", path):
            return self.resolve(*found.groups())
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/(.+))?", path):
            return self.model(*found.groups(), body)
        return self.hub(path, body)

    do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815 (the names that the base looks for)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _chunks(self) -> bytes:
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def answer(self, status: int, body: Any = None, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, what: str) -> None:
        self.answer(404, {"error": f"no such {what}"}, X_Error_Code=MISSING[what])

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.state.token}"

    def hub(self, path: str, body: bytes) -> None:
        if path == "/api/validate-yaml":
            errors = yaml_errors(json.loads(body)["content"])
            found = {"errors": [{"message": error} for error in errors], "warnings": []}
            return self.answer(400 if errors else 200, found)
        if not self.known:
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/whoami-v2":
            return self.answer(200, {"name": "me", "type": "user", "orgs": []})
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if path == "/api/repos/delete":
            self.state.repos.pop(name)
            return self.answer(200, {})
        assert path == "/api/repos/create", path
        old = name in self.state.repos
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        if not old:
            self.state.repos[name] = Repo(private=private)
            self.state.repos[name].commit("main", {".gitattributes": b""}, "initial commit")
        return self.answer(409 if old else 200, {"url": f"{self.state.url}/{name}", "id": name})

    def refused(self, name: str) -> bool:
        """Answer for a repository that is not there or not for this user."""
        repo = self.state.repos.get(name)
        if repo is None or (repo.private and not self.known):
            if self.known:
                self.missing("repo")
            else:
                self.answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return True
        return False

    def model(self, name: str, verb: str | None, revision: str | None, body: bytes) -> None:
        if self.refused(name):
            return None
        repo = self.state.repos[name]
        if self.command == "GET":
            commit = repo.find(revision or "main")
            if commit is None:
                return self.missing("revision")
            files = [{"rfilename": file} for file in repo.commits[commit]]
            return self.answer(200, {"id": name, "sha": commit, "siblings": files})
        if not self.known:
            return self.answer(403, {"error": "no write access"})
        assert revision is not None
        if verb == "branch":
            old = revision in repo.branches
            repo.branches.setdefault(revision, repo.branches["main"])
            return self.answer(409 if old else 200, {})
        if verb == "preupload":
            listed = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in listed]  # fmt: skip
            return self.answer(200, {"files": modes})
        assert verb == "commit", verb
        lines = [json.loads(line) for line in body.splitlines()]
        files = {line["value"]["path"]: base64.b64decode(line["value"]["content"])
                 for line in lines if line["key"] == "file"}  # fmt: skip
        commit = repo.commit(revision, files, lines[0]["value"]["summary"])
        url = f"{self.state.url}/{name}/commit/{commit}"
        return self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def resolve(self, name: str, revision: str, file: str) -> None:
        if self.refused(name):
            return None
        repo = self.state.repos[name]
        if self.state.file_status == 404:
            return self.missing("file")
        if self.state.file_status:
            return self.answer(self.state.file_status, {"error": "a fault"})
        if repo.gated:
            return self.answer(403, {"error": "gated"}, X_Error_Code="GatedRepo")
        commit = repo.find(revision)
        if commit is None:
            return self.missing("revision")
        if file not in repo.commits[commit]:
            return self.missing("file")
        return self.send_file(file, repo.commits[commit][file], commit)

    def send_file(self, name: str, data: bytes, commit: str) -> None:
        tag = etag(name, data)
        if name in self.state.spoil:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(re.sub(r"\D", "", self.headers.get("Range", "")) or 0)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        tensors = name.endswith(".safetensors")
        if tensors and self.state.drop:
            self.state.drop -= 1
            self.wfile.write(data[start : (start + len(data)) // 2])
            return
        pieces = 50 if tensors and self.state.pause else 1
        size = max(1, -(-(len(data) - start) // pieces))
        try:
            for first in range(start, len(data), size):
                self.wfile.write(data[first : first + size])
                time.sleep(self.state.pause if tensors else 0)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            return
