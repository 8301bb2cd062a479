"""JavaScript modules of the page, tested by `node --test` with a small stand-in for the browser."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from app.web import messages

TESTS = Path(__file__).parent / "js"
STATIC = Path(messages.__file__).parent / "static"
SHARES = [0, 0.0005, 0.0233, 0.414, 0.75, 0.9542, 0.995, 0.9999, 0.999999, 1]


@pytest.mark.skipif(
    shutil.which("node") is None, reason="there is no node; on Debian: apt-get install nodejs"
)
@pytest.mark.parametrize("file", [file.name for file in sorted(TESTS.glob("*.test.mjs"))])
def test_scripts(file: str, tmp_path: Path) -> None:
    shutil.copytree(TESTS, tmp_path, dirs_exist_ok=True)
    shutil.copytree(STATIC, tmp_path / "static")
    (tmp_path / "static" / "package.json").write_text('{"type": "module"}')
    english = messages.languages()["en"]
    (tmp_path / "en.json").write_text((Path(messages.__file__).parent / "messages" / "en.json").read_text())
    (tmp_path / "shares.json").write_text(json.dumps([[share, english.percent(share)] for share in SHARES]))
    done = subprocess.run(
        ["node", "--test", file], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
