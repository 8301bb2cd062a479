"""`flowgauge serve` in a child process, with its CPU time and memory."""

import os
import signal
import ssl
import subprocess
import time
import weakref
from pathlib import Path
from typing import Self

import httpx

from bench.memory import peak_bytes
from examples.processes import FLOWGAUGE
from tests.support.ports import reserved_port

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


class ServerError(ValueError):
    """The server did not start or did not stop cleanly."""


class Server:
    """A server on a free port of this machine.

    Args:
        models: its models folder.
        work: a folder for its history and its log.
        settings: FLOWGAUGE_* variables, without the prefix and in lower case; with `tls_certificate`, the
            server is called over https.
    """

    def __init__(self, models: Path, work: Path, **settings: str | int) -> None:
        self.models = models
        self.history = work / "history"
        self.log = work / "server.log"
        # The user's own settings would distort the figures; the cache of converted backbones can be shared.
        outside = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FLOWGAUGE_") or name == "FLOWGAUGE_ENGINE_CACHE"
        }
        given = {f"FLOWGAUGE_{name.upper()}": str(value) for name, value in settings.items()}
        self._environment = outside | {"FLOWGAUGE_HISTORY": str(self.history)} | given
        self._context: ssl.SSLContext | None = None
        if (certificate := settings.get("tls_certificate")) is not None:
            self._context = ssl.create_default_context(cafile=str(certificate))
        self._process: subprocess.Popen[bytes] | None = None
        holder, self.port = reserved_port()
        weakref.finalize(self, holder.close)
        work.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Id of the process."""
        if self._process is None:
            raise ServerError("the server does not run")
        return self._process.pid

    def start(self) -> float:
        """Start the server, always on the same port; return the seconds until it was ready."""
        begun = time.monotonic()
        options = ("--models", self.models, "--port", self.port, "--device", "cpu")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*FLOWGAUGE, "serve", *map(str, options)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        # One client for all requests: creating one takes a noticeable part of a start.
        with self.client() as client:
            while not _is_ready(client):
                if self._process.poll() is not None or time.monotonic() - begun > _START_SECONDS:
                    self.kill()
                    raise ServerError(f"the server did not get ready; the end of its log:\n{self.log_end()}")
                time.sleep(0.02)
        return time.monotonic() - begun

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server, by default as a service manager does; its exit code must be 0."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        if code != 0:
            raise ServerError(
                f"the server ended with exit code {code}; the end of its log:\n{self.log_end()}"
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log_end(self) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def client(self) -> httpx.Client:
        verify = self._context or True
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=verify)

    def metrics(self) -> dict[str, float]:
        """Read /metrics: values by the text before them, such as `flowgauge_batch_images_sum`."""
        with self.client() as client:
            lines = client.get("/metrics").raise_for_status().text
        pairs = (line.rpartition(" ") for line in lines.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all threads, in user and kernel mode; proc(5), /proc/PID/stat."""
        # The process name, in parentheses, can contain spaces.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Return the resident memory; proc(5), /proc/PID/statm."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak_bytes(self) -> int:
        """Return the peak of the resident memory."""
        return peak_bytes(self.pid)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready", timeout=5).is_success
    except httpx.TransportError:
        return False
