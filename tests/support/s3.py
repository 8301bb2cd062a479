"""A real S3 server for tests, moto's, which can be suspended, killed and started again."""

import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Self

import httpx

from tests.support.ports import reserved_port
from tests.support.waiting import standing_still

_START_SECONDS: Final = 60.0
# What clients read: any credentials will do.
ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """A server on a port of its own that ends with this process. What it holds is lost when it ends."""

    def __init__(self) -> None:
        self._holder, self.port = reserved_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = Path(tempfile.mkstemp(prefix="fg-moto-", dir="/tmp")[1])
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._holder.close()
        self._log.unlink()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = ["setpriv", "--pdeathsig=KILL", "--", sys.executable, "-m", "moto.server"]
        with self._log.open("ab") as log:
            options = ["-H", "127.0.0.1", "-p", str(self.port)]
            self._process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.02)

    def make_bucket(self, name: str | None = None) -> str:
        """Make an empty bucket and return its name."""
        name = name or f"bucket-{uuid.uuid4().hex}"
        self._request("PUT", name)
        return name

    def standing_still(self) -> AbstractContextManager[None]:
        """Suspend the server within the block: it takes connections and does not answer."""
        assert self._process is not None
        return standing_still(self._process.pid)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def _answers(self) -> bool:
        try:
            self._request("GET", "moto-api/")
        except httpx.TransportError:
            return False
        return True

    def _request(self, method: str, path: str) -> None:
        # moto takes a request without a signature for one of S3.
        httpx.request(method, f"{self.url}/{path}", timeout=20).raise_for_status()
