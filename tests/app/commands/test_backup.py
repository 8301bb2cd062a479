"""`flowgauge backup` as a person types it; what it does is tested in tests/app/backup."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

import flowgauge
from app.backup.folder import BackupFolder
from app.database.engine import Database
from app.main import create_app
from app.settings import Settings

NAME = r"[0-9]{8}T[0-9]{9}Z"
Run = Callable[..., Result]


@pytest.fixture
def settings(store: Path, tmp_path: Path, tiny_images: dict[str, list[bytes]]) -> Settings:
    """A plant that has inspected one picture."""
    settings = Settings(models=store, history=tmp_path / "history")
    with TestClient(create_app(settings)) as client:
        answer = client.post("/v1/models/tiny/predict", content=tiny_images["good"][0])
        assert client.get(answer.json()["links"]["inspection"]).status_code == 200
    return settings


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command on this plant; the backup folder comes after the command's name."""

    def invoke(command: str, *options: str | Path, folder: Path = tmp_path / "backup") -> Result:
        environment = {
            "FLOWGAUGE_HISTORY": str(tmp_path / "history"),
            "FLOWGAUGE_MODELS": str(tmp_path / "models"),
        }
        arguments = ["backup", command, str(folder), *map(str, options)]
        return CliRunner().invoke(flowgauge.app, arguments, env=environment)

    return invoke


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(result: Result) -> str:
    assert result.exit_code == 1, result.output
    return result.stderr


@pytest.mark.usefixtures("settings")
def test_create_list_verify_restore(run: Run, tmp_path: Path) -> None:
    line = said(run("create"))
    assert re.fullmatch(rf"{NAME}: inspections: 1, versions of models: 1; [0-9,]+ bytes copied\n", line)
    name = line.partition(":")[0]
    assert said(run("list")) == f"{name}  1 inspections, categories: tiny\n"
    [row] = json.loads(said(run("list", "--json")))
    assert (row["name"], row["inspections"]) == (name, 1)
    assert said(run("verify")) == f"{name}: good\n"
    new = ["--history", tmp_path / "new" / "history", "--models", tmp_path / "new" / "models"]
    told = said(run("restore", name, *new))
    assert told.startswith(
        f"{name} is restored: 1 inspections in {tmp_path / 'new' / 'history'}\n"
        f"its models are restored to {tmp_path / 'new' / 'models'}\n"
        "keys are those of the snapshot: one that was revoked later is valid again"
    )
    restored = Settings(history=tmp_path / "new" / "history", models=tmp_path / "new" / "models")
    with TestClient(create_app(restored)) as client:
        assert len(client.get("/v1/inspections").json()["inspections"]) == 1


@pytest.mark.usefixtures("settings")
def test_old_snapshots_go(run: Run) -> None:
    names = [said(run("create")).partition(":")[0] for _ in range(3)]
    told = said(run("create", "--keep", "2"))
    assert told.endswith(f"{names[0]} is deleted\n{names[1]} is deleted\n")
    assert len(said(run("list")).splitlines()) == 2


@pytest.mark.usefixtures("settings")
def test_damage_is_told(run: Run, tmp_path: Path) -> None:
    name = said(run("create")).partition(":")[0]
    there = BackupFolder(tmp_path / "backup")
    image = next(there.object_path(line.sha256) for line in there.lines(name) if "pictures/" in line.path)
    image.write_bytes(b"rotten")
    result = run("verify")
    assert result.exit_code == 1
    assert re.fullmatch(
        rf"history/pictures/.* is missing or damaged: {image}\n{name}: 1 faults\n", result.stdout
    )


@pytest.mark.usefixtures("settings")
def test_models_that_are_there_stay(run: Run, tmp_path: Path) -> None:
    said(run("create"))
    before = sorted((tmp_path / "models").rglob("*"))
    result = run("restore", "--history", tmp_path / "new" / "history")
    said(result)
    assert sorted((tmp_path / "models").rglob("*")) == before
    assert result.stderr == f"the models are not restored: the folder {tmp_path / 'models'} is not empty\n"


@pytest.mark.usefixtures("settings")
class TestRefusals:
    def test_snapshot_that_cannot_be_read(self, run: Run, tmp_path: Path) -> None:
        """The others are listed, a new one is taken, and nothing is deleted."""
        names = [said(run("create")).partition(":")[0] for _ in range(3)]
        (tmp_path / "backup" / "snapshots" / names[1] / "snapshot.json").write_bytes(b"rotten")
        listed = run("list")
        assert f"{names[1]}/snapshot.json cannot be read" in failed(listed)
        assert [line.split()[0] for line in listed.stdout.splitlines()] == [names[0], names[2]]
        created = run("create", "--keep", "3")
        assert f"{names[1]}/snapshot.json cannot be read" in failed(created)
        assert re.match(NAME, created.stdout)
        assert len(BackupFolder(tmp_path / "backup").names()) == 4

    @pytest.mark.parametrize("command", ["list", "verify", "restore"])
    def test_a_folder_that_is_no_backup(self, run: Run, tmp_path: Path, command: str) -> None:
        (tmp_path / "other").mkdir()
        assert "is no backup" in failed(run(command, folder=tmp_path / "other"))

    def test_a_folder_of_something_else(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "letter").touch()
        assert "is not empty and is no backup" in failed(run("create", folder=tmp_path / "other"))

    def test_a_snapshot_that_is_not_there(self, run: Run) -> None:
        name = said(run("create")).partition(":")[0]
        assert f"it has {name}" in failed(run("verify", "20200101T000000000Z"))
        assert f"it has {name}" in failed(run("restore", "../x"))

    @pytest.mark.parametrize("missing", ["history", "models"])
    def test_a_folder_that_is_not_there(self, run: Run, tmp_path: Path, missing: str) -> None:
        told = failed(run("create", f"--{missing}", tmp_path / "none"))
        assert re.search(f"there is no {missing}.* {tmp_path / 'none'}", told)
        assert not (tmp_path / "backup").exists()

    def test_a_database_that_no_server_has_used(self, run: Run, tmp_path: Path) -> None:
        """As `flowgauge keys create` makes it without a server's variables; --keep deletes the real ones."""
        said(run("create"))
        typo = tmp_path / "typo"
        database = Database(f"sqlite:///{typo / 'history.sqlite'}")
        database.prepare()
        database.close()
        assert "no server has used" in failed(run("create", "--history", typo, "--keep", "1"))
        [name] = BackupFolder(tmp_path / "backup").names()
        assert BackupFolder(tmp_path / "backup").snapshot(name).inspections == 1
