"""The package flowgauge-client in an environment of its own: what a line PC installs."""

import json
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.server import Server

ROOT = Path(__file__).parents[2]
PACKED = tomllib.loads((ROOT / "clients" / "pyproject.toml").read_text())


def test_it_has_the_version_of_the_server() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert PACKED["project"]["version"] == whole["project"]["version"]
    for requirement in PACKED["project"]["dependencies"]:
        assert requirement in whole["project"]["dependencies"]


def test_packed_modules_exist_and_import_only_each_other() -> None:
    packed = PACKED["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for source in packed:
        assert (ROOT / "clients" / source).exists(), source
    modules = [*(ROOT / "app" / "client").rglob("*.py")]
    modules += [ROOT / "clients" / source for source in packed if source.endswith(".py")]
    for module in modules:  # under another name there is no package `app`
        text = module.read_text()
        assert "from app" not in text, module
        assert "import app" not in text, module


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_client_works_on_a_line_pc(small_fleet: Fleet, tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        done = subprocess.run(
            list(map(str, command)),
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", ROOT / "clients", "--no-deps", "--wheel-dir", tmp_path)
    [wheel] = tmp_path.glob("flowgauge_client-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "__pycache__" in name]
    venv.create(tmp_path / "line", with_pip=True)
    programs = tmp_path / "line" / "bin"
    run(programs / "pip", "install", f"{wheel}[watch]")
    installed = {one["name"] for one in json.loads(run(programs / "pip", "list", "--format", "json"))}
    assert {"flowgauge-client", "httpx", "pydantic", "typer"} <= installed
    assert installed & {"flowgauge", "torch", "numpy", "fastapi", "opencv-python-headless", "timm"} == set()
    (tmp_path / "camera").mkdir()
    for number in range(2):
        (tmp_path / "camera" / f"{number}.jpg").write_bytes(small_fleet.images[number])
    category = small_fleet.categories[0]
    code = (
        "import sys, asyncio, flowgauge_client as f\n"
        "url, category = sys.argv[1:]\n"
        "with f.Client(url) as client:\n"
        "    first = client.inspect(category, 'camera/0.jpg')\n"
        "    assert client.overlay(first.inspection_id).startswith(b'\\x89PNG')\n"
        "async def ask():\n"
        "    async with f.AsyncClient(url) as client:\n"
        "        return [one.inspection_id async for one in client.inspections()]\n"
        "assert asyncio.run(ask()) == [first.inspection_id]\n"
        "try:\n    f.Client(url).model('bottel')\n"
        "except f.NotFoundError as error:\n    print(first.decision, error)\n"
    )
    with Server(small_fleet.models, tmp_path / "server") as server:
        assert "bottel" in run(programs / "python", "-c", code, server.url, category)
        watched = run(
            programs / "flowgauge-watch", "camera", "--category", category, "--url", server.url, "--once"
        )
    assert len(watched.splitlines()) == 2
