"""Tests of the scenarios' checks; `tests/system` runs swap and crash themselves."""

import hashlib
import json
import sqlite3
import subprocess
from pathlib import Path

import cv2
import pytest

from bench.service import crash, fairness, overload, saturation, swap, training
from bench.service.client import Response
from bench.service.load import Exchange
from flows.fastflow.imaging.decoder import decode_image
from tests.conftest import picture
from tests.support.fleet import Fleet, make, unique


def test_unique_keeps_the_pixels_and_changes_the_file() -> None:
    jpeg = cv2.imencode(".jpg", picture(0))[1].tobytes()
    first, second = unique(jpeg, 1), unique(jpeg, 2)
    assert len({jpeg, first, second}) == 3
    assert (decode_image(first) == decode_image(jpeg)).all()


def test_version_may_be_active_until_next_activation_ends() -> None:
    timeline = swap.Timeline("a")
    timeline.switch("b", requested=10, answered=12)
    timeline.switch("a", requested=20, answered=21)
    assert timeline.active == "a"
    assert timeline.may_be_active("a", 11, 11.5)  # not answered yet
    assert timeline.may_be_active("b", 11, 11.5)
    assert not timeline.may_be_active("a", 12.5, 19.5)
    assert timeline.may_be_active("a", 11.5, 13)  # begun before
    assert timeline.may_be_active("a", 19.5, 20.5)
    assert not timeline.may_be_active("b", 1, 9)
    assert not timeline.may_be_active("b", 21.5, 22)
    assert not timeline.may_be_active("c", 0, 100)


def exchange(
    status: int, seconds: float = 0.1, headers: dict[str, str] | None = None, **body: object
) -> Exchange:
    response = Response(status, headers or {}, json.dumps(body).encode()) if status else None
    return Exchange("bottle", 0, 100.0, 100.0 + seconds, response)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (exchange(0), "connection was lost"),
        (exchange(503), "503"),
        (exchange(200, model={"category": "grid", "version": "v1"}, score=2.0), "answered as grid"),
        (exchange(200, model={"category": "bottle", "version": "v2"}, score=2.0), "was not active"),
        (
            exchange(200, model={"category": "bottle", "version": "v1"}, score=2.1),
            r"scored 2\.1 instead of 2\.0",
        ),
    ],
)
def test_swap_finds_a_wrong_response(wrong: Exchange, fault: str) -> None:
    scores, timelines = {("bottle", "v1"): [2.0], ("bottle", "v2"): [2.0]}, {"bottle": swap.Timeline("v1")}
    timelines["grid"] = swap.Timeline("v1")
    right = exchange(200, model={"category": "bottle", "version": "v1"}, score=2.00001)
    assert swap.find_fault(right, scores, timelines) == ""
    found = swap.find_fault(wrong, scores, timelines)
    with pytest.raises(AssertionError, match=fault):
        raise AssertionError(found)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (exchange(0), "lost their connection"),
        (exchange(200, seconds=1.1), "after their deadline"),
        (exchange(504), "504"),
        (exchange(503), "without Retry-After"),
        (exchange(500), "another status"),
    ],
)
def test_overload_finds_a_wrong_response(wrong: Exchange, fault: str) -> None:
    right = [exchange(200), exchange(503, headers={"retry-after": "1"})]
    assert overload.find_faults(right, 1.0) == []
    (found,) = overload.find_faults([*right, wrong], 1.0)
    assert fault in found
    assert found.startswith("1 of 3")


@pytest.mark.parametrize(
    ("flood", "few", "fault"),
    [
        (exchange(200), exchange(503, headers={"retry-after": "1"}), "1 of 1 requests of the category that"),
        (exchange(200), exchange(504), "1 of 3 requests were accepted and not answered"),
        (exchange(500), exchange(200), "1 of 3 requests had another status"),
    ],
)
def test_fairness_finds_a_wrong_response(flood: Exchange, few: Exchange, fault: str) -> None:
    refused = exchange(503, headers={"retry-after": "1"})
    assert fairness.find_faults([exchange(200), refused], [exchange(200)], 1.0) == []
    [found] = fairness.find_faults([refused, flood], [few], 1.0)
    assert found.startswith(fault)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    for folder in ("pictures/ab", "maps/cd", "incoming", "journal"):
        (tmp_path / folder).mkdir(parents=True)
    sha256 = hashlib.sha256(b"image").hexdigest()
    (tmp_path / "pictures/ab" / sha256).write_bytes(b"image")
    (tmp_path / "maps/cd/one.npy").write_bytes(b"map")
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        connection.execute("CREATE TABLE inspections (id TEXT, image_sha256 TEXT)")
        connection.execute("INSERT INTO inspections VALUES ('one', ?)", [sha256])
    connection.close()
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("rm pictures/ab/*", "1 rows have no image"),
        ("printf other > pictures/ab/$(printf other | sha256sum | cut -c-64)",
         "1 images belong to no row"),
        ("for f in pictures/ab/*; do echo damaged > $f; done", "1 images do not match the digest"),
        ("echo > incoming/x", "1 files are partial"),
        ("echo > journal/000000000001.journal", "1 files are left in the journal"),
    ],
)  # fmt: skip
def test_inconsistencies_are_found(history: Path, damage: str, fault: str) -> None:
    assert crash.find_inconsistencies(history, {"one"}) == (1, [])
    subprocess.run(["sh", "-c", damage], cwd=history, check=True)
    _, faults = crash.find_inconsistencies(history, {"one"})
    assert len(faults) == 1
    assert fault in faults[0]


def test_missing_answer_is_found(history: Path) -> None:
    assert crash.find_inconsistencies(history, {"one", "two"})[1] == ["1 answers are not in the database"]


@pytest.mark.slow
def test_saturation_and_fairness_run(tmp_path: Path) -> None:
    fleet: Fleet = make(tmp_path / "fleet", size=64, categories=2, versions=1)
    figures, _ = saturation.run(fleet, tmp_path / "saturation", clients=16, seconds=2)
    assert figures["images"] > 16
    figures, _ = fairness.run(fleet, tmp_path / "fairness", clients=100, seconds=2)
    assert figures["few_by_status"]["200"] > 0


@pytest.mark.parametrize(
    ("ratios", "answer", "faults"),
    [
        ([1.2, 3.0, 1.9], exchange(200), []),
        ([1.2, 3.0, 2.1], exchange(200), ["p95 beside a training is 2.10 times that without"]),
        ([1.0], exchange(503), ["1 requests failed"]),
    ],
)
def test_training_finds_slow_and_failed_requests(
    ratios: list[float], answer: Exchange, faults: list[str]
) -> None:
    assert training.find_faults(ratios, [[answer]]) == faults
