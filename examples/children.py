"""Commands as child processes that end when we do: on Ctrl-C, on SIGTERM, on an error."""

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
PATIENCE_SECONDS = 30


class ChildError(ValueError):
    """A command that failed; its own words are on the screen already."""


def run(*command: str) -> None:
    """Run a flowgauge command to its end; it writes to our terminal.

    Raises:
        ChildError: it failed.
        KeyboardInterrupt: it was interrupted, or we were and so it was too.
    """
    print(f"$ flowgauge {shlex.join(command)}", flush=True)
    child = start([*FLOWGAUGE, *command])
    try:
        code = child.wait()
    finally:
        end(child, signal.SIGINT)
    if code in (INTERRUPTED, -signal.SIGINT):  # by Python, or before Python was up
        raise KeyboardInterrupt
    if code != 0:
        raise ChildError(f"flowgauge {command[0]} ended with exit code {code}, see above")


@contextmanager
def serving(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`flowgauge serve` beside us, stopped at the end as a service manager would stop it.

    Raises:
        ChildError: it did not end well.
    """
    child = start([*FLOWGAUGE, "serve", *options])
    try:
        yield child
    finally:
        end(child, signal.SIGTERM)
    if child.returncode != 0:
        raise ChildError(f"the server ended with exit code {child.returncode}")


def wait_until_ready(url: str, server: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Wait until the server says that its models are loaded.

    Raises:
        ChildError: it ended, or took too long.
    """
    said = "it did not answer"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ChildError(
                f"the server ended with exit code {server.returncode}, see above; if another "
                "process took the port meanwhile: make demo PORT=8001"
            )
        try:
            # Proxies of the environment have no business with this machine's own address.
            answer = httpx.get(f"{url}/health/ready", timeout=5, trust_env=False)
            if answer.is_success:
                return
            said = f"it answered {answer.status_code} {answer.text}"
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise ChildError(f"the server was not ready within {seconds:.0f} s: {said}")


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a child that Ctrl-C does not reach: we pass it on once, and wait."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        # What it says appears at once, also where our output is a pipe.
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def end(child: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Ask a child to end and wait; insist if it does not, or if we are interrupted again."""
    if child.poll() is not None:
        return
    child.send_signal(how)
    try:
        child.wait(PATIENCE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()
