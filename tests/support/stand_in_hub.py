"""A stand-in for the model hub: as much of its protocol as a download needs, with files that tests make."""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import timm
from safetensors.torch import save_file
from torch import Tensor

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def path_of(name: str) -> str:
    """Return the hub's path of the weights of a timm model."""
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    return f"/{config.hf_hub_id}/resolve/main/model.safetensors"


@dataclass
class Hub:
    """What the stand-in has, by path, and what it was asked: method and path.

    The files are large, so they stay on disk. `refused` has, by a path's repository, the status and code with
    which it is kept from strangers.
    """

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def put(self, name: str, state: Mapping[str, Tensor]) -> None:
        file = self.folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, file)
        self.files[path_of(name)] = file

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of a process that uses this hub and a cache of its own."""
        others = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return others | {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            repository = self.path.split("/resolve/")[0]
            file = hub.files.get(self.path)
            if repository in hub.refused:
                self._refuse(*hub.refused[repository])
            elif file is None:
                known = any(path.startswith(repository) for path in hub.files)
                self._refuse(404, "EntryNotFound" if known else "RepoNotFound")
            else:
                with file.open("rb") as data:
                    self.send_response(200)
                    self.send_header("X-Repo-Commit", COMMIT)
                    self.send_header("ETag", f'"{hashlib.file_digest(data, "sha256").hexdigest()}"')
                    self.send_header("Content-Length", str(file.stat().st_size))
                    self.end_headers()
                    data.seek(0)
                    if body:
                        shutil.copyfileobj(data, self.wfile)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    return Handler


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
