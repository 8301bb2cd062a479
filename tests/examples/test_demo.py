"""Parts of the demo; `make demo` runs all of it."""

import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from examples import demo
from training.data.sample import Sample


def samples(**counts: int) -> list[Sample]:
    return [
        Sample(Path(f"{kind}/{i:03d}.png"), None if kind == "good" else kind, None)
        for kind, count in counts.items()
        for i in range(count)
    ]


def names(chosen: list[Sample]) -> list[str]:
    return [sample.path.as_posix() for sample in chosen]


def test_samples_are_spread_over_one_kind_of_defect() -> None:
    chosen = demo.choose_samples(samples(good=377, defective=715))
    assert names(chosen) == [
        *("good/062.png", "good/188.png", "good/314.png"),
        *("defective/119.png", "defective/357.png", "defective/595.png"),
    ]


def test_samples_are_spread_over_kinds_of_defect() -> None:
    chosen = demo.choose_samples(samples(good=20, a=5, b=5, c=5, d=5, e=5))
    assert names(chosen[3:]) == ["a/002.png", "c/002.png", "e/002.png"]


def test_used_port_is_reported_first(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind((demo.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(demo.DemoError, match=f"port {port} .* make demo PORT=8001"):
            demo.require_free_port(port)
        assert demo.main(["--port", str(port), "--data", "/nowhere"]) == 1
    assert capsys.readouterr().out.startswith(f"error: port {port} of 127.0.0.1 is not available")
    demo.require_free_port(port)


@pytest.mark.parametrize("category", [None, "botle"])
def test_unknown_category_lists_the_known_ones(
    tmp_path: Path, category: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bottle" / "train" / "good").mkdir(parents=True)
    (tmp_path / "grid" / "train" / "good").mkdir(parents=True)
    arguments = ["--data", str(tmp_path), "--port", "0", "--serve", "0"]
    assert demo.main([*arguments, *(("--category", category) if category else ())]) == 1
    error = capsys.readouterr().out.splitlines()[-1]
    assert error.startswith("error: ")
    assert error.endswith("found: bottle, grid")


def test_next_commands_survive_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    demo.print_commands("http://127.0.0.1:8001", "bottle", Path("/my data/it's.png"))
    first, second, _ = (shlex.split(line) for line in capsys.readouterr().out.splitlines())
    assert first == [
        "curl",
        "-F",
        "file=@/my data/it's.png",
        "http://127.0.0.1:8001/v1/models/bottle/predict",
    ]
    assert "file=@/my data/it's.png" in second


def test_every_signal_interrupts_the_demo() -> None:
    code = (
        "import time\nfrom examples import demo\n"
        "def wait(options):\n    print('up', flush=True)\n    time.sleep(60)\n"
        "demo.demonstrate = wait\n"
        "while True:\n    print(demo.main([]), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                assert process.stdout.readline() == "up\n"
                process.send_signal(number)
                output = [process.stdout.readline() for _ in range(3)]
                assert "`make demo` continues from the finished steps" in output[1]
                assert output[2] == "130\n"
        finally:
            process.kill()
