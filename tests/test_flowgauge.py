"""The command line: light --help, one line per error, documented exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flowgauge

HEAVY = ("torch", "cv2", "fastapi", "sklearn", "timm", "numpy", "pydantic", "scipy")


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, command: str = "doctor") -> None:
    module = f"mounted_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(f"def command():\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    # pytest gives the folder's name again when a test before has passed.
    monkeypatch.delitem(sys.modules, module, raising=False)
    kept = flowgauge.COMMANDS[command].interrupted
    monkeypatch.setitem(flowgauge.COMMANDS, command, flowgauge.LazyCommand(f"{module}:command", "line", kept))


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_nothing_heavy_is_imported_for_help_and_version(option: str) -> None:
    done = python(
        "import sys, flowgauge\n"
        "try:\n    flowgauge.main()\n"
        "finally:\n    print('loaded:', *sorted(sys.modules), file=sys.stderr)",
        option,
    )
    assert done.returncode == 0
    loaded = done.stderr.partition("loaded:")[2].split()
    assert "typer" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize(
    "arguments",
    [
        "train --data /nope --category x",
        "train --data tests --category docs --config /nope",
        "evaluate --data /nope --category x --models /nope",
        "compare --data /nope --category x --version v1 --models /nope",
        "calibrate --category x --images tests --models /nope",
        "predict README.md --category x --models /nope",
        "serve --models /nope",
        "models list --models /nope",
        "data check --data /nope --category x",
        *("flows train --help", "predict --help", "serve --help"),
    ],
)
def test_wrong_paths_and_help_are_told_without_torch(arguments: str) -> None:
    code = "import sys, flowgauge\ntry:\n    flowgauge.main()\nfinally:\n    print('torch' in sys.modules)"
    done = python(code, *arguments.split())
    assert done.stdout.splitlines()[-1] == "False"
    assert "Traceback" not in done.stderr


def test_help_lists_commands_in_working_order() -> None:
    shown = CliRunner().invoke(flowgauge.app, ["--help"]).stdout
    places = [shown.index(f"│ {name} ") for name in flowgauge.COMMANDS]
    assert places == sorted(places)
    for command in flowgauge.COMMANDS.values():
        assert command.help.split()[0] in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["trian"], "Did you mean 'train'"), (["data", "elpv", "--oot", "x"], "No such option")],
)
def test_wrong_usage_is_explained_and_exits_2(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(flowgauge.app, arguments)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "from training.data.sample import DatasetError; raise DatasetError('no pictures in x')",
            r"no pictures in x\n$",
        ),
        ("open('/nowhere/at/all')", r"No such file or directory: /nowhere/at/all\n$"),
        (
            "raise OSError(28, 'No space left on device')",
            "No space left on device: the disk of --models, --runs, --out or TMPDIR is.*--resume",
        ),
        (
            "raise MemoryError",
            "there is not enough memory: stop other programs, or train with a smaller preset",
        ),
    ],
    ids=["ours", "a file", "a full disk", "no memory"],
)
def test_an_error_is_one_line_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, said: str
) -> None:
    mount(monkeypatch, tmp_path, body)
    result = CliRunner().invoke(flowgauge.app, ["doctor"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.match(f"error: {said}", result.stderr)


def test_internal_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mount(monkeypatch, tmp_path, "raise ValueError('defect')")
    result = CliRunner().invoke(flowgauge.app, ["doctor"])
    assert str(result.exception) == "defect"
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "/nowhere", "--category", "x"], 1, "there is no data folder /nowhere"),
        (["--data", "x"], 2, "Invalid value for '--category' / '--all': choose the categories"),
        (["--dada", "x"], 2, "No such option: --dada"),
    ],
)
def test_error_is_an_event_if_events_are_wanted(arguments: list[str], code: int, message: str) -> None:
    for form in (["--progress=json"], ["--progress", "json"]):
        result = CliRunner().invoke(flowgauge.app, ["train", *arguments, *form])
        told = json.loads(result.stdout)
        assert (result.exit_code, told["event"]) == (code, "error")
        assert told["message"].startswith(message)


REPLACED = """
import flowgauge
kept = flowgauge.COMMANDS['train'].interrupted
flowgauge.COMMANDS['train'] = flowgauge.LazyCommand('replaced:run', 'line', kept)
flowgauge.main()
"""


def test_ctrl_c_says_what_is_kept_and_exits_130(tmp_path: Path) -> None:
    code = "import time\ndef run():\n    print('begun', flush=True)\n    time.sleep(60)\n"
    (tmp_path / "replaced.py").write_text(code)
    with subprocess.Popen(
        [sys.executable, "-c", REPLACED, "train"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said.strip().startswith("interrupted: checkpoints are kept")
    assert "--resume" in said
    assert "Traceback" not in said


def test_unencodable_name_is_still_printed(tmp_path: Path) -> None:
    (tmp_path / "replaced.py").write_text("def run():\n    print('Stra\\u00dfe \\udcff.png')\n")
    done = python(REPLACED, "train", PYTHONIOENCODING="ascii", PYTHONPATH=str(tmp_path))
    assert done.stdout == "Stra\\xdfe \\udcff.png\n", done.stderr


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m flowgauge --help | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "error:" not in done.stderr


@pytest.mark.parametrize(
    ("given", "kept"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_threads_spin_briefly_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], kept: str
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "import os, flowgauge\n"
        "try:\n    flowgauge.main()\n"
        "finally:\n    print('spin', os.environ.get('GOMP_SPINCOUNT'))"
    )
    assert f"spin {kept}\n" in python(code, "--version", **given).stdout
