import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.feed.log import Event
from app.sinks.dead_letters import DeadLetters, read
from app.sinks.errors import SinkError


def event(number: int) -> Event:
    return Event("inspection", "bottle", None, "PASS", json.dumps({"n": number}), number)


def letters(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_letters_are_appended_with_the_reason(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "sinks" / "a.dead.ndjson")
    for number in (1, 2):
        dead.add(event(number), "the receiver answers 410")
    found = letters(dead.path)
    assert [letter["data"] for letter in found] == [{"n": 1}, {"n": 2}]
    assert found[0]["reason"] == "the receiver answers 410"
    assert str(found[0]["given_up"]).endswith("Z")


def test_the_newest_are_kept_and_the_room_is_bounded(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "a.dead.ndjson", max_bytes=1000)
    for number in range(100):
        dead.add(event(number), "no")
    files = [tmp_path / "a.dead.ndjson.1", dead.path]
    kept = [letter["data"]["n"] for path in files for letter in letters(path)]  # type: ignore[index]
    assert kept == list(range(kept[0], 100))
    assert all(path.stat().st_size <= 1000 for path in files)
    assert stems(tmp_path) == [dead.path.name, files[0].name]


def test_threads_that_meet_at_the_limit_lose_no_full_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that both found the file full would put a new one over the full one before it."""
    rename = Path.replace

    def slowly(path: Path, target: Path) -> Path:
        time.sleep(0.01)
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", slowly)
    dead = DeadLetters(tmp_path / "a.dead.ndjson", max_bytes=1000)
    with ThreadPoolExecutor(8) as threads:
        for start in range(0, 160, 8):
            list(threads.map(lambda number: dead.add(event(number), "no"), range(start, start + 8)))
            before = tmp_path / "a.dead.ndjson.1"
            if before.exists():
                size = before.stat().st_size
                assert size + size // len(letters(before)) + 2 > 1000
    assert not caplog.records


def test_where_it_cannot_be_written_the_log_has_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.ERROR):
        DeadLetters(tmp_path / "file" / "a.dead.ndjson").add(event(7), "no")
    assert '{"n": 7}' in caplog.text


def stems(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_what_is_taken_out_comes_in_its_order_and_leaves_no_file(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "a.dead.ndjson", max_bytes=1000)
    for number in range(20):
        dead.add(event(number), "no")
    kept = len(dead)
    assert kept == len([*letters(tmp_path / "a.dead.ndjson.1"), *letters(dead.path)])
    with dead.taken() as lines:
        assert [json.loads(line)["data"]["n"] for line in lines] == list(range(20 - kept, 20))
        lines.clear()
    assert len(dead) == 0
    assert stems(tmp_path) == []


def test_what_is_left_is_put_back_before_what_came_meanwhile(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "a.dead.ndjson")
    for number in range(3):
        dead.add(event(number), "no")

    def fail() -> None:
        with dead.taken() as lines:
            lines.popleft()
            DeadLetters(dead.path).add(event(3), "no")  # as a server does, which has one of its own
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(dead) == 3
    with dead.taken() as lines:
        assert [json.loads(line)["data"]["n"] for line in lines] == [1, 2, 3]
    assert len(dead) == 3


def test_two_full_files_are_put_back_whole(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "a.dead.ndjson", max_bytes=1000)
    for number in range(40):
        dead.add(event(number), "no")
    before = [*letters(tmp_path / "a.dead.ndjson.1"), *letters(dead.path)]
    with dead.taken():
        pass
    with dead.taken() as lines:
        assert [json.loads(line) for line in lines] == before
        for number in range(40, 60):
            dead.add(event(number), "no")
    with dead.taken() as lines:  # no more than two files of old ones, and those are the newest
        kept = [json.loads(line)["data"]["n"] for line in lines]
    assert kept == list(range(kept[0], 60))
    assert kept[0] > before[0]["data"]["n"]  # type: ignore[index]
    assert (tmp_path / "a.dead.ndjson.1").stat().st_size <= 2000


def test_letters_of_a_killed_taker_are_found_by_the_next(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "a.dead.ndjson")
    for number in range(2):
        dead.add(event(number), "no")
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from app.sinks.dead_letters import DeadLetters\n"
        "with DeadLetters(Path(sys.argv[1])).taken() as lines:\n"
        "    lines.clear()\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, dead.path], check=False).returncode == 9
    dead.add(event(2), "no")
    assert len(dead) == 3
    with dead.taken() as lines:
        assert [json.loads(line)["data"]["n"] for line in lines] == [0, 1, 2]


def test_a_line_that_was_cut_off_is_lost_alone(tmp_path: Path) -> None:
    """By a kill, or a disk that was full: what comes later begins a line of its own."""
    dead = DeadLetters(tmp_path / "a.dead.ndjson")
    dead.add(event(0), "no")
    with dead.path.open("a") as file:
        file.write('{"given_up": "2026')
    dead.add(event(1), "no")
    with dead.taken() as lines:
        assert [json.loads(lines[i])["data"]["n"] for i in (0, 2)] == [0, 1]
        assert lines[1] == '{"given_up": "2026'


@pytest.mark.parametrize("where", ["a.dead.ndjson.1", "a.dead.ndjson"])
def test_what_a_kill_has_left_in_two_files_is_there_once(tmp_path: Path, where: str) -> None:
    dead = DeadLetters(tmp_path / "a.dead.ndjson")
    for number in range(3):
        dead.add(event(number), "no")
    shutil.copy(dead.path, tmp_path / "a.dead.ndjson.taken")
    dead.path.rename(tmp_path / where)
    with dead.taken() as lines:
        assert [json.loads(line)["data"]["n"] for line in lines] == [0, 1, 2]


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o750, 0o640), (0o755, 0o644)])
def test_who_may_not_enter_the_folder_may_not_read_it(tmp_path: Path, folder: int, file: int) -> None:
    tmp_path.chmod(folder)
    dead = DeadLetters(tmp_path / "a.dead.ndjson")
    dead.add(event(0), "no")
    with dead.taken():
        assert stat.S_IMODE((tmp_path / "a.dead.ndjson.taken").stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "a.dead.ndjson.1").stat().st_mode) == file


def test_another_user_than_the_servers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and locks of root would keep the server from its own."""
    dead = DeadLetters(tmp_path / "a.dead.ndjson")
    dead.add(event(0), "no")
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(SinkError, match="run this as that one"), dead.taken():
        pass
    assert len(dead) == 1


def test_only_one_takes(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "a.dead.ndjson")
    dead.add(event(1), "no")
    with dead.taken() as lines:
        with pytest.raises(SinkError, match="somebody else takes letters"), DeadLetters(dead.path).taken():
            pass
        assert len(lines) == 1
    assert len(dead) == 1


def test_where_there_are_no_letters_nothing_is_made(tmp_path: Path) -> None:
    with DeadLetters(tmp_path / "sinks" / "a.dead.ndjson").taken() as lines:
        assert not lines
    assert not (tmp_path / "sinks").exists()


@pytest.mark.parametrize(
    "line",
    [
        *("", "{", "7", "{}", '{"data": 7}', '{"data": {"category": "bottle"}}'),
        '{"data": {"inspection_id": "1", "category": "bottle", "station": null, "decision": "PASS"}}',
        '{"data": {"inspection_id": 1, "created_at": "", "category": "", "station": "", "decision": "PASS"}}',
    ],
)
def test_a_line_that_is_no_letter_has_no_event(line: str) -> None:
    assert read(line) is None


def test_a_letter_has_the_event_that_was_given_up(tmp_path: Path) -> None:
    data = {
        "inspection_id": "1",
        "created_at": "2026-11-25T01:15:00.123Z",
        "category": "bottle",
        "station": None,
        "decision": "PASS",
    }
    gone = Event("inspection", "bottle", None, "PASS", json.dumps(data), 7)
    dead = DeadLetters(tmp_path / "a.dead.ndjson")
    dead.add(gone, "no")
    with dead.taken() as lines:
        assert read(lines[0]) == replace(gone, number=0)
