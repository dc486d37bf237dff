"""A stand-in of the Hugging Face hub: repositories, uploads, commits and downloads, as its library calls them."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_stand_in"


@dataclass
class Repository:
    private: bool = False
    #: Commits, the oldest first: name and files.
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)

    def add(self, files: dict[str, bytes]) -> str:
        before = self.commits[-1][1] if self.commits else {}
        name = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits.append((name, before | files))
        return name


class Hub(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        #: Who may write: HTTP 403 to all others.
        self.writable = True
        #: Close the connection in place of the answer to a commit.
        self.hangs_up = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is part of these tests."""


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Serve a hub, of which the library in this process, and it alone, knows."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("TSMZOO_OFFLINE", raising=False)
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        api = path.startswith("/api/models/")
        pieces = path.removeprefix("/api/models" if api else "").strip("/").split("/")
        repository = self.server.repositories.get("/".join(pieces[:2]))
        if repository is None:
            self.answer({"error": "no"}, 404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return
        kind, revision = (pieces[2], pieces[3]) if len(pieces) > 3 else ("revision", "main")
        found = repository.at(revision)
        if found is None:
            self.answer({"error": "no"}, 404, X_Error_Code="RevisionNotFound", X_Error_Message="Revision not found")
            return
        commit, files = found
        if not api:
            name = "/".join(pieces[4:])
            if name not in files:
                self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
                return
            etag = hashlib.sha1(files[name]).hexdigest()
            self.answer(files[name], ETag=f'"{etag}"', X_Repo_Commit=commit)
        elif kind == "tree":
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
            )
        else:
            siblings = [{"rfilename": name} for name in files]
            self.answer(
                {"id": "/".join(pieces[:2]), "sha": commit, "private": repository.private, "siblings": siblings}
            )

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.server.uploads[self.path.rsplit("/", 1)[-1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"")

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"POST {path}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            self.answer({"warnings": [], "errors": []})
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid username or password."}, 401)
            return
        if not self.server.writable:
            self.answer({"error": "You don't have the rights"}, 403)
            return
        repository = self.server.repositories.get("/".join(path.removeprefix("/api/models").split("/")[1:3]))
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            if name in self.server.repositories:
                self.answer({"error": "exists", "url": f"{self.server.url}/{name}"}, 409)
                return
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.server.repositories[name] = Repository(private)
            self.server.repositories[name].add({".gitattributes": b""})
            self.answer({"url": f"{self.server.url}/{name}"})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.answer(
                {
                    "transfer": "basic",
                    "objects": [
                        each | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}}
                        for each in json.loads(content)["objects"]
                    ],
                }
            )
        elif "/preupload/" in path:
            named = [each["path"] for each in json.loads(content)["files"]]
            self.answer(
                {
                    "files": [
                        {
                            "path": name,
                            "uploadMode": "regular" if name.endswith((".json", ".md")) else "lfs",
                            "shouldIgnore": False,
                        }
                        for name in named
                    ]
                }
            )
        elif "/commit/" in path and repository is not None:
            if self.server.hangs_up:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            files = {}
            for line in map(json.loads, content.splitlines()):
                about = line["value"]
                if line["key"] == "file":
                    files[about["path"]] = base64.b64decode(about["content"])
                elif line["key"] == "lfsFile":
                    files[about["path"]] = self.server.uploads[about["oid"]]
            commit = repository.add(files)
            self.answer(
                {
                    "commitUrl": f"{self.server.url}/{'/'.join(path.split('/')[3:5])}/commit/{commit}",
                    "commitOid": commit,
                }
            )
        else:
            self.answer({"error": "no"}, 404)
