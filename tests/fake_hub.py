"""A hub on this machine, for tests of what is fetched from one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """Serves one repository as huggingface.co does, and misbehaves on request."""

    def __init__(self, repo: str, files: dict[str, bytes], kind: str = "model") -> None:
        self.repo = repo
        self.files = files
        self.lied: dict[str, bytes] = {}  # what is sent in place of a file
        self.cut: int | None = None  # bytes after which the next file's connection breaks
        self.gated = False
        self.pause = 0.0  # s between two megabytes
        self.requests: list[tuple[str, str]] = []  # path and range of each
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # a client that has heard enough
                    super().handle()

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append((path, self.headers.get("Range", "")))
                page = hub.repo if kind == "model" else f"{kind}s/{hub.repo}"
                if path.startswith(f"/api/{kind}s/{hub.repo}"):
                    self.reply(json.dumps(hub.info()).encode())
                elif path.startswith(f"/{page}/resolve/"):
                    self.file(path.removeprefix(f"/{page}/resolve/").partition("/")[2])
                else:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def file(self, name: str) -> None:
                if hub.gated:
                    self.send_response(403)
                    self.send_header("X-Error-Code", "GatedRepo")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.reply(hub.lied.get(name, hub.files[name]))

            def reply(self, body: bytes) -> None:
                start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                if hub.cut is not None and "/resolve/" in self.path:
                    body, hub.cut = body[: start + hub.cut], None
                    self.close_connection = True
                for first in range(start, len(body), 1 << 20):
                    self.wfile.write(body[first : first + (1 << 20)])
                    time.sleep(hub.pause)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def info(self) -> dict:
        siblings = []
        for name, content in self.files.items():
            item = {"rfilename": name, "size": len(content)}
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if name.endswith((".ckpt", ".safetensors")):
                sha = hashlib.sha256(content).hexdigest()
                item["lfs"] = {"size": len(content), "sha256": sha, "pointerSize": 130}
            siblings.append(item | {"blobId": git})
        card = {"license": "other", "license_name": "do-good-only", "license_link": "https://x.org"}
        return {"id": self.repo, "sha": COMMIT, "siblings": siblings, "cardData": card}

    def fetched(self) -> list[tuple[str, str]]:
        return [
            (path.partition("/resolve/")[2].partition("/")[2], r)
            for path, r in self.requests
            if "/resolve/" in path
        ]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
