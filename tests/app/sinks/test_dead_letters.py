import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.feed.log import Event
from app.sinks.dead_letters import DeadLetters


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
    assert sorted(tmp_path.iterdir()) == sorted(files)


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
