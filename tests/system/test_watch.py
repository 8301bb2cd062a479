"""Watcher and server, killed at random moments: every image is inspected once."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.client import Client
from tests.support.fleet import Fleet, unique
from tests.support.server import Server

PATIENCE = 300.0


@dataclass
class Camera:
    """Writer of images, mostly in pieces; some names return with other images."""

    folder: Path
    pictures: list[bytes]
    pause: float
    rng: random.Random

    def run(self) -> None:
        for number, picture in enumerate(self.pictures):
            # Every tenth name is one that was written before.
            name = (
                f"line{number % 3}/{number - number % 10:05}.jpg" if number % 10 == 9 else self.name(number)
            )
            self.write(self.folder / name, picture)
            time.sleep(self.rng.uniform(0, self.pause))

    def name(self, number: int) -> str:
        return f"line{number % 3}/{number:05}.jpg"

    def write(self, path: Path, picture: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        while path.exists():  # a camera that overwrites what nobody has seen yet loses it itself
            time.sleep(0.01)
        match self.rng.randrange(3):
            case 0:
                path.write_bytes(picture)
            case 1:  # under another name, then renamed
                hidden = path.with_name(f".{path.name}")
                hidden.write_bytes(picture)
                hidden.rename(path)
            case _:  # slowly
                with path.open("wb", buffering=0) as file:
                    for start in range(0, len(picture), len(picture) // 3 + 1):
                        file.write(picture[start : start + len(picture) // 3 + 1])
                        time.sleep(self.rng.uniform(0, 0.05))


def watch(
    server: Server, folder: Path, category: str, moved: Path | None, *options: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flowgauge", "watch", str(folder), "--category", category]
    command += ["--url", server.url, "--settle", "0.2", *options]
    if moved is not None:
        command += ["--move-to", str(moved)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def scenario(fleet: Fleet, work: Path, *, files: int, kills: int, server_kills: int, seed: int) -> None:
    """Write images while watcher and server are killed; then check the results."""
    rng = random.Random(seed)
    folder, moved = work / "camera", work / "inspected"
    folder.mkdir()
    category = fleet.categories[0]
    pictures = [unique(fleet.images[i % len(fleet.images)], i) for i in range(files)]
    bad = [b"no picture %d" % i for i in range(3)]
    for number, content in enumerate(bad):
        (folder / f"bad{number}.jpg").write_bytes(content)
    camera = threading.Thread(target=Camera(folder, pictures, 0.05, rng).run)
    moments = set(rng.sample(range(kills), server_kills))
    with Server(fleet.models, work / "server") as server:
        camera.start()
        watcher = watch(server, folder, category, moved)
        try:
            for number in range(kills):
                if number % 2:  # at work, if there is any
                    wait_for_more(moved, 3.0)
                    time.sleep(rng.uniform(0, 0.2))
                else:  # at any moment, its start among them
                    time.sleep(rng.uniform(0.1, 3.0))
                watcher.kill()
                watcher.wait()
                watcher = watch(server, folder, category, moved)
                if number in moments:  # while the watcher runs
                    time.sleep(rng.uniform(0.5, 2.0))
                    server.kill()
                    server.start()
            camera.join(PATIENCE)
            assert not camera.is_alive()
            watcher.send_signal(signal.SIGTERM)
            assert watcher.wait(PATIENCE) in (0, -signal.SIGTERM)  # or it had not begun yet
            # Whatever is left; the bad ones are no success.
            watcher = watch(server, folder, category, moved, "--once")
            assert watcher.wait(PATIENCE) in (0, 1)
            require_once(server, folder, moved, pictures, bad)
        finally:
            watcher.kill()
            watcher.wait()


def wait_for_more(folder: Path, seconds: float) -> None:
    """Wait for more JSON files in a folder, with a time limit."""
    before = len(list(folder.rglob("*.json")))
    end = time.monotonic() + seconds
    while len(list(folder.rglob("*.json"))) == before and time.monotonic() < end:
        time.sleep(0.01)


def require_once(server: Server, folder: Path, moved: Path, pictures: list[bytes], bad: list[bytes]) -> None:
    expected = Counter(hashlib.sha256(picture).hexdigest() for picture in pictures)
    assert set(expected.values()) == {1}
    told = [json.loads(path.read_bytes()) for path in moved.rglob("*.json")]
    inspected = {
        one["inspection"]["inspection_id"]: one["file"]["sha256"] for one in told if "inspection" in one
    }
    with Client(server.url) as client:
        for identifier in inspected:
            client.inspection(identifier)  # filed, at the latest when this is answered
        kept = {one.inspection_id: one.image_sha256 for one in client.inspections(page=500)}
    assert Counter(kept.values()) == expected
    assert inspected == kept
    there = {hashlib.sha256(path.read_bytes()).hexdigest() for path in moved.rglob("*.jpg")}
    failed = {hashlib.sha256(content).hexdigest() for content in bad}
    assert there == set(expected) | failed
    assert {one["file"]["sha256"] for one in told if "problem" in one} == failed
    left = [path for path in folder.rglob("*") if path.is_file() and ".flowgauge" not in path.parts]
    assert left == []
    # What was being written at a kill lies under a name that begins with a dot, and nowhere else.
    assert all(path.name.endswith(".part") for path in moved.rglob(".*"))


def test_every_image_is_inspected_once_over_kills(small_fleet: Fleet, tmp_path: Path) -> None:
    scenario(small_fleet, tmp_path, files=40, kills=3, server_kills=1, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_over_five_hundred_images(small_fleet: Fleet, tmp_path: Path) -> None:
    scenario(small_fleet, tmp_path, files=500, kills=20, server_kills=3, seed=2)
