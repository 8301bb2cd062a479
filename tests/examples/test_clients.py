"""The client examples, run as programs against a real service."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.client import Client
from app.database.engine import Database
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLOWGAUGE_URL": url, "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.usefixtures("curl")
class TestCurl:
    def ask(self, image: Path, url: str, category: str = "tiny") -> tuple[int, str, str]:
        done = run("sh", "examples/inspect.sh", image, category, url=url)
        return done.returncode, done.stdout, done.stderr

    def test_exit_code_tells_the_decision(self, camera: Path, url: str) -> None:
        with Client(url) as client:
            good = client.inspect("tiny", camera / "good.png", store=False).decision
        assert self.ask(camera / "good.png", url)[:2] == ({"PASS": 0, "REJECT": 20}[good], f"{good}\n")
        assert self.ask(camera / "defect.png", url)[:2] == (20, "REJECT\n")

    def test_failed_inspection_prints_no_decision(self, camera: Path, url: str) -> None:
        for image, category, problem in (
            (camera / "bad.png", "tiny", "unsupported-media-type"),
            (camera / "good.png", "bottel", "unknown-model"),
        ):
            code, out, error = self.ask(image, url, category)
            assert (code, out) == (22, "")
            assert problem in error

    @pytest.mark.parametrize("name", ["a,b;type=x.png", 'say "x".png', "back\\slash.png"])
    def test_file_name_may_have_special_characters(self, camera: Path, url: str, name: str) -> None:
        image = (camera / "defect.png").rename(camera / name)
        assert self.ask(image, url)[:2] == (20, "REJECT\n")

    def test_key_is_in_no_command_line(
        self,
        camera: Path,
        curl: str,
        tiny_bundle_store: Path,
        serve_http: Callable[[FastAPI], AbstractContextManager[str]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        settings = Settings(models=tiny_bundle_store, history=tmp_path / "history")
        database = Database(settings.database_url)
        database.upgrade()
        _, key = KeyStore(database).create(COMMAND_LINE, Role.LINE, "line 3")
        database.close()
        wrapper = tmp_path / "bin" / "curl"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/called"\nexec "{curl}" "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
        with serve_http(create_app(settings)) as url:
            assert "unauthenticated" in self.ask(camera / "defect.png", url)[2]
            monkeypatch.setenv("FLOWGAUGE_KEY", key)
            assert self.ask(camera / "defect.png", url)[:2] == (20, "REJECT\n")
        called = (tmp_path / "called").read_text()
        assert called.count("/v1/models/tiny/predict") == 2
        assert key not in called


def test_inspect_part_exit_codes(camera: Path, url: str) -> None:
    program = (sys.executable, "examples/inspect_part.py", "tiny")
    done = run(*program, "P-7", camera / "good.png", camera / "defect.png", url=url)
    assert done.returncode == 1, done.stderr
    assert "defect.png: REJECT, score " in done.stdout
    assert done.stdout.endswith("P-7: REJECT\n")
    assert (camera / "defect.png.overlay.png").read_bytes().startswith(b"\x89PNG")
    bad = run(*program, "P-8", camera / "bad.png", url=url)
    assert (bad.returncode, bad.stderr.startswith("unsupported-media-type: ")) == (2, True)
    away = run(*program[:2], "bottel", "P", camera / "good.png", url=url)
    assert (away.returncode, "bottel" in away.stderr) == (2, True)
    gone = run(*program, "P-9", camera / "gone.png", url=url)
    assert (gone.returncode, "gone.png" in gone.stderr) == (2, True)
    nowhere = run(*program, "P-9", camera / "good.png", url="127.0.0.1:8000")
    assert (nowhere.returncode, "Traceback" in nowhere.stderr) == (2, False)
    nothing = run(*program, url=url)
    assert (nothing.returncode, "P-000123 top.png" in nothing.stderr) == (2, True)


def test_inspect_part_decides_without_overlay(camera: Path, url: str) -> None:
    (camera / "defect.png.overlay.png").mkdir()
    done = run(sys.executable, "examples/inspect_part.py", "tiny", "P-10", camera / "defect.png", url=url)
    assert (done.returncode, "no overlay: " in done.stdout) == (1, True)
    assert done.stdout.endswith("P-10: REJECT\n")
