"""Child processes end when we do, and what they end with is passed on."""

import os
import signal
import subprocess
import sys

import pytest

from examples import children

STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(60)",
]


def flowgauge(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(children, "FLOWGAUGE", (sys.executable, "-c", code))


def test_a_command_that_fails_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    flowgauge(monkeypatch, "raise SystemExit(3)")
    with pytest.raises(children.ChildError, match="flowgauge train ended with exit code 3"):
        children.run("train")


def test_ctrl_c_ends_the_command_once_and_then_us() -> None:
    child_code = (
        "import time\n"
        "try:\n    print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('checkpoint kept', flush=True); raise SystemExit(130)"
    )
    code = (
        "import sys\nfrom examples import children\n"
        f"children.FLOWGAUGE = (sys.executable, '-c', {child_code!r})\n"
        "try:\n    children.run('train')\nexcept KeyboardInterrupt:\n    sys.exit(130)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, process_group=0
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "$ flowgauge train\n"
        assert parent.stdout.readline() == "up\n"
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        rest, _ = parent.communicate(timeout=30)  # the pipe closes only when the child is gone too
    assert parent.returncode == 130
    assert rest == "checkpoint kept\n"


def test_a_child_that_ignores_us_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PATIENCE_SECONDS", 0.2)
    with subprocess.Popen(STUBBORN, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        children.end(child, signal.SIGTERM)
        assert child.returncode == -signal.SIGKILL


def test_a_failure_beside_a_server_ends_it_and_stays_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    flowgauge(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(ZeroDivisionError), children.serving() as server:
        raise ZeroDivisionError
    assert server.returncode == -signal.SIGTERM


def test_a_server_that_ended_is_noticed_at_once() -> None:
    child = children.start([sys.executable, "-c", "raise SystemExit(1)"])
    child.wait()
    with pytest.raises(children.ChildError, match=r"ended with exit code 1.*PORT=8001"):
        children.wait_until_ready("http://127.0.0.1:9", child)
