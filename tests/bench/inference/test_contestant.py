"""Processes that take turns: what they are asked, what they say, and what is seen when they end."""

import sys
from pathlib import Path

import pytest

from bench.inference.answering import timed
from bench.inference.contestant import Contestant, ContestantError, Turn, compete, load_all

_PROGRAM = """
import sys, time
from bench.inference.answering import Loaded, answer

def load():
    print("loading is told on standard output")
    held = bytearray(b"x") * 100_000_000
    works = {
        "fast": (lambda: time.sleep(0.001), 1),
        "batch": (lambda: time.sleep(0.008) or len(held), 8),
        "death": (lambda: sys.exit("no more"), 1),
    }
    return Loaded(works, {"name": sys.argv[1]})

answer(load)
"""


def command(name: str) -> list[str]:
    return [sys.executable, "-c", _PROGRAM, name]


def test_a_turn_has_the_seconds_of_each_call(tmp_path: Path) -> None:
    with Contestant("one", command("one"), tmp_path / "one.log", 1) as one:
        assert one.about["name"] == "one"
        assert one.works == {"fast": 1, "batch": 8, "death": 1}
        turn = one.turn("batch", 0.0, least=4)
        assert len(turn.seconds) == 4
        assert min(turn.seconds) >= 0.008
        assert turn.images == 8
        assert 100e6 < one.peak_bytes < 1e9
    assert "loading is told" in (tmp_path / "one.log").read_text()
    assert one.peak_bytes == 0  # it has ended


def test_a_contestant_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(ContestantError, match=r"(?s)broken ended.*no such model"):
        Contestant("broken", [sys.executable, "-c", "exit('no such model')"], tmp_path / "log", 1)


def test_one_that_ends_in_its_turn_says_why(tmp_path: Path) -> None:
    with Contestant("one", command("one"), tmp_path / "one.log", 1) as one:
        with pytest.raises(ContestantError, match=r"(?s)one ended.*no more"):
            one.turn("death", 0.0)
        with pytest.raises(ContestantError, match="one ended"):
            one.turn("fast", 0.0)


def test_settings_of_the_user_do_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGAUGE_PRECISION", "bfloat16")
    program = (
        "import os; from bench.inference.answering import Loaded, answer\n"
        "answer(lambda: Loaded({}, {'seen': [n for n in os.environ if n.startswith('FLOWGAUGE_')],"
        " 'threads': os.environ['OMP_NUM_THREADS']}))"
    )
    with Contestant("one", [sys.executable, "-c", program], tmp_path / "log", 3) as one:
        assert one.about == {"works": {}, "seen": [], "threads": "3"}


def test_all_take_turns_and_another_begins_each_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        asked = [("one", command("one")), ("two of", command("two"))]
        both = load_all(stack, asked, tmp_path, 1)
        capsys.readouterr()
        results = compete(both, ["fast", "batch"], 2, 0.0)
    order = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()]
    assert order == [
        "one, fast", "one, batch", "two of, fast", "two of, batch",
        "two of, fast", "two of, batch", "one, fast", "one, batch",
    ]  # fmt: skip
    assert {key: len(turns) for key, turns in results.turns.items()} == {
        ("one", "fast"): 2, ("one", "batch"): 2, ("two of", "fast"): 2, ("two of", "batch"): 2,
    }  # fmt: skip
    assert results.peaks.keys() == {"one", "two of"}
    assert results.about["two of"]["name"] == "two"
    assert (tmp_path / "two-of.log").exists()


def test_a_first_call_warms_up_and_does_not_count() -> None:
    calls = []
    found = timed(lambda: calls.append(1), seconds=0.0, least=3)
    assert len(calls) == 4
    assert len(found["seconds"]) == 3
    assert found["cpu"] >= 0


def test_calls_go_on_for_as_long_as_was_asked() -> None:
    assert sum(timed(lambda: sum(range(1000)), seconds=0.05, least=1)["seconds"]) > 0.01


def test_a_turn_by_the_image() -> None:
    turn = Turn([0.8, 0.4, 4.0], cpu=12.0, images=8)
    assert turn.milliseconds == pytest.approx(100)
    assert turn.cpu_milliseconds == pytest.approx(500)
