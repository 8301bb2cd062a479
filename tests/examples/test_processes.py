"""Child processes end with their parent, and their exit codes are reported."""

import os
import signal
import subprocess
import sys

import pytest

from examples import processes

STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(60)",
]


def flowgauge(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(processes, "FLOWGAUGE", (sys.executable, "-c", code))


def test_failed_command_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    flowgauge(monkeypatch, "raise SystemExit(3)")
    with pytest.raises(processes.ProcessError, match="flowgauge train ended with exit code 3"):
        processes.run("train")


def test_ctrl_c_stops_the_command_once() -> None:
    child_code = (
        "import time\n"
        "try:\n    print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('checkpoint kept', flush=True); raise SystemExit(130)"
    )
    code = (
        "import sys\nfrom examples import processes\n"
        f"processes.FLOWGAUGE = (sys.executable, '-c', {child_code!r})\n"
        "try:\n    processes.run('train')\nexcept KeyboardInterrupt:\n    sys.exit(130)"
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


def test_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    with subprocess.Popen(STUBBORN, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        processes.stop(child, signal.SIGTERM)
        assert child.returncode == -signal.SIGKILL


def test_error_stops_the_server_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    flowgauge(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(ZeroDivisionError), processes.serving() as server:
        raise ZeroDivisionError
    assert server.returncode == -signal.SIGTERM


def test_ended_server_is_noticed_at_once() -> None:
    child = processes.start([sys.executable, "-c", "raise SystemExit(1)"])
    child.wait()
    with pytest.raises(processes.ProcessError, match=r"ended with exit code 1.*PORT=8001"):
        processes.wait_until_ready("http://127.0.0.1:9", child)
