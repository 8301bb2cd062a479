"""Child processes that end with this one: on Ctrl-C, on SIGTERM, on an error."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

FLOWGAUGE = (sys.executable, "-m", "flowgauge")
INTERRUPTED = 130
STOP_SECONDS = 30


class ProcessError(ValueError):
    """A command failed; its own output is already on the screen."""


def run(*command: str) -> None:
    """Run a flowgauge command to its end, on this terminal.

    Raises:
        ProcessError: it failed.
        KeyboardInterrupt: it or this process was interrupted.
    """
    print(f"$ flowgauge {shlex.join(command)}", flush=True)
    child = start([*FLOWGAUGE, *command])
    try:
        code = child.wait()
    finally:
        stop(child, signal.SIGINT)
    if code in (INTERRUPTED, -signal.SIGINT):  # by Python, or before Python had started
        raise KeyboardInterrupt
    if code != 0:
        raise ProcessError(f"flowgauge {command[0]} ended with exit code {code}, see above")


@contextmanager
def serving(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `flowgauge serve`, and stop it with SIGTERM at the end, as a service manager does.

    Raises:
        ProcessError: it ended with an error.
    """
    child = start([*FLOWGAUGE, "serve", *options])
    try:
        yield child
    finally:
        stop(child, signal.SIGTERM)
    if child.returncode != 0:
        raise ProcessError(f"the server ended with exit code {child.returncode}")


def wait_until_ready(url: str, server: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Wait until the server has loaded its models.

    Raises:
        ProcessError: it ended, or took too long.
    """
    status = "it did not answer"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ProcessError(
                f"the server ended with exit code {server.returncode}, see above; if another process uses "
                "the port, choose another: make demo PORT=8001"
            )
        try:
            # No proxy of the environment for this machine's own address.
            answer = httpx.get(f"{url}/health/ready", timeout=5, trust_env=False)
            if answer.is_success:
                return
            status = f"it answered {answer.status_code} {answer.text}"
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise ProcessError(f"the server was not ready within {seconds:.0f} s: {status}")


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a child in its own process group: `stop` passes Ctrl-C on, once, and waits."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        # Its output appears at once, even if ours is a pipe.
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def stop(child: subprocess.Popen[bytes], signal_number: signal.Signals) -> None:
    """Signal a child and wait; kill it after `STOP_SECONDS`, or at a second interruption."""
    if child.poll() is not None:
        return
    child.send_signal(signal_number)
    try:
        child.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()
