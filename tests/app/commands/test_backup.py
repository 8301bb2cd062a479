"""`flowgauge backup` as a person types it; what it does is tested in tests/app/backup."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

import flowgauge
from app.access import COMMAND_LINE, Role
from app.backup.folder import BackupFolder
from app.database.engine import Database
from app.keys import Keys
from app.main import create_app
from app.settings import Settings
from tests.app.backup.conftest import make_old

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
    assert (row["name"], row["rows"]["inspections"], row["problems"]) == (name, 1, [])
    assert said(run("verify")) == f"{name}: good\n"
    new = ["--history", tmp_path / "new" / "history", "--models", tmp_path / "new" / "models"]
    told = said(run("restore", name, *new))
    assert told.startswith(f"{name} is back: 1 inspections, 0 reviews, 0 keys")
    assert "valid" not in told
    restored = Settings(history=tmp_path / "new" / "history", models=tmp_path / "new" / "models")
    with TestClient(create_app(restored)) as client:
        assert len(client.get("/v1/inspections").json()["inspections"]) == 1


def test_keys_that_are_valid_again_are_told(run: Run, settings: Settings, tmp_path: Path) -> None:
    database = Database(settings.database_url)
    keys = Keys(database)
    made = [keys.create(COMMAND_LINE, Role.LINE, f"line {number}")[0] for number in range(3)]
    keys.revoke(COMMAND_LINE, made[0].id)
    said(run("create"))
    keys.revoke(COMMAND_LINE, made[1].id)
    database.close()
    new = tmp_path / "new" / "history"
    told = said(run("restore", "--history", new, "--models", tmp_path / "new" / "models"))
    assert "valid keys: 2, as in the snapshot; one that was revoked after it is valid again" in told
    command = f"keys revoke ID --history {new}"
    assert command in told
    arguments = command.replace("ID", made[1].id).split()
    assert CliRunner().invoke(flowgauge.app, arguments).exit_code == 0
    listed = CliRunner().invoke(flowgauge.app, ["keys", "list", "--history", str(new)]).stdout
    assert [line.split()[0] for line in listed.splitlines() if "  valid " in line] == [made[2].id]


@pytest.mark.usefixtures("settings")
def test_old_snapshots_go(run: Run) -> None:
    names = [said(run("create")).partition(":")[0] for _ in range(3)]
    assert said(run("prune", "--keep", "2")) == f"{names[0]} is deleted\n"
    assert f"{names[1]} is deleted\n" in said(run("create", "--keep", "2"))
    assert len(said(run("list")).splitlines()) == 2


@pytest.mark.usefixtures("settings")
def test_a_clock_that_has_gone_back_is_told_and_takes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [said(run("create")).partition(":")[0] for _ in range(2)]
    monkeypatch.setattr("app.backup.taking.clock.now_ms", lambda: 946_684_800_000)
    result = run("create", "--keep", "2")
    assert f"{names[0]} is deleted\n" in said(result)
    assert f"{names[1]} was taken before this one" in result.stderr
    assert "set the clock" in result.stderr
    assert said(run("verify")) == "20000101T000000000Z: good\n"
    assert [line[:19] for line in said(run("list")).splitlines()] == [names[1], "20000101T000000000Z"]


@pytest.mark.usefixtures("settings")
def test_what_cannot_be_checked_is_told(run: Run, tmp_path: Path) -> None:
    name = said(run("create")).partition(":")[0]
    make_old(BackupFolder(tmp_path / "backup"), name)
    result = run("verify")
    assert said(result) == f"{name}: good\n"
    assert re.fullmatch(r"not checked: .*maps.*\nnot checked: .*journal.*\n", result.stderr)


def test_what_is_missing_is_told(run: Run, settings: Settings) -> None:
    [score_map] = (settings.history / "maps").rglob("*.npy")
    score_map.unlink()
    result = run("create")
    assert result.exit_code == 1
    assert re.match(NAME, result.stdout)
    assert result.stderr.startswith("missing: the picture or the map of inspection ")
    assert said(run("list")).endswith(", 1 missing\n")


def test_of_very_many_that_are_missing_the_first_are_named_and_all_are_counted(
    run: Run, settings: Settings, tiny_images: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.backup.taking._NAMED", 1)
    with TestClient(create_app(settings)) as client:
        for _ in range(2):
            answer = client.post("/v1/models/tiny/predict", content=tiny_images["good"][0])
            assert client.get(answer.json()["links"]["inspection"]).status_code == 200
    for score_map in (settings.history / "maps").rglob("*.npy"):
        score_map.unlink()
    first, second = failed(run("create")).splitlines()
    assert first.startswith("missing: the picture or the map of inspection ")
    assert second == (
        "missing: and likewise of more inspections, 2 in number: the table lost_files of the snapshot's "
        "database.sqlite has the ids of all"
    )
    assert said(run("list")).endswith(", 3 missing\n")
    [row] = json.loads(said(run("list", "--json")))
    assert (len(row["lost"]), len(row["problems"]), row["unnamed"]) == (1, 2, 2)


def test_what_was_missing_is_told_again_where_it_is_verified_and_restored(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    [score_map] = (settings.history / "maps").rglob("*.npy")
    score_map.unlink()
    missing = run("create").stderr
    verified = run("verify")
    assert re.fullmatch(f"{NAME}: good\n", said(verified))
    new = run("restore", "--history", tmp_path / "new" / "history", "--models", tmp_path / "new" / "models")
    assert new.exit_code == 0, new.output
    assert verified.stderr == new.stderr == missing


@pytest.mark.usefixtures("settings")
def test_damage_is_told(run: Run, tmp_path: Path) -> None:
    said(run("create"))
    [picture] = (tmp_path / "backup" / "pictures").rglob("?" * 64)
    picture.write_bytes(b"rotten")
    result = run("verify")
    assert result.exit_code == 1
    assert re.fullmatch(
        rf"the picture {picture.name} is missing or damaged: {picture}\n{NAME}: 1 faults\n", result.stdout
    )


@pytest.mark.usefixtures("settings")
def test_what_the_backup_has_lost_is_left_out_where_that_is_wanted(run: Run, tmp_path: Path) -> None:
    said(run("create"))
    [picture] = (tmp_path / "backup" / "pictures").rglob("?" * 64)
    picture.unlink()
    new = ("restore", "--history", tmp_path / "new" / "history", "--models", tmp_path / "new" / "models")
    assert "all else of this one by --incomplete" in failed(run(*new))
    result = run(*new, "--incomplete")
    assert result.exit_code == 0, result.output
    assert re.match(f"{NAME} is back: 1 inspections", result.stdout)
    assert re.fullmatch(
        "missing: the picture of inspection [0-9a-f-]{36} cannot be brought back: .*\n", result.stderr
    )


def test_what_waits_in_the_journal_of_before_comes_along(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    said(run("create"))
    journal = settings.history / "journal"
    (journal / f"{1:012}.journal").write_bytes(bytes(1234))
    new = ["--history", tmp_path / "new" / "history", "--models", tmp_path / "new" / "models"]
    told = said(run("restore", *new, "--journal", journal))
    assert f"\n1,234 bytes of {journal} come along; the server files them when it starts\n" in told
    assert (tmp_path / "new" / "history" / "journal" / f"{1:012}.journal").stat().st_size == 1234


@pytest.mark.usefixtures("settings")
class TestRefusals:
    def test_the_newest_where_a_snapshot_cannot_be_read(self, run: Run, tmp_path: Path) -> None:
        """It might be older than what is meant, and say that all is good."""
        names = [said(run("create")).partition(":")[0] for _ in range(2)]
        (tmp_path / "backup" / "snapshots" / names[1] / "snapshot.json").write_bytes(b"rotten")
        new = ["--history", tmp_path / "new" / "history", "--models", tmp_path / "new" / "models"]
        for result in (run("verify"), run("restore", *new)):
            assert f"Name the snapshot that is meant, one of {names[0]}\n" in failed(result)
        assert not (tmp_path / "new").exists()
        assert said(run("verify", names[0])) == f"{names[0]}: good\n"

    def test_the_others_are_listed_beside_one_that_cannot_be_read(self, run: Run, tmp_path: Path) -> None:
        names = [said(run("create")).partition(":")[0] for _ in range(3)]
        (tmp_path / "backup" / "snapshots" / names[1] / "snapshot.json").write_bytes(b"rotten")
        listed = run("list")
        assert f"{names[1]}/snapshot.json cannot be read" in failed(listed)
        assert [line.split()[0] for line in listed.stdout.splitlines()] == [names[0], names[2]]
        listed = run("list", "--json")
        assert names[1] in failed(listed)
        assert [row["name"] for row in json.loads(listed.stdout)] == [names[0], names[2]]

    def test_nothing_is_deleted_beside_one_that_cannot_be_read(
        self, run: Run, settings: Settings, tmp_path: Path
    ) -> None:
        """The snapshot is taken all the same, and what it lacks is told."""
        first = said(run("create")).partition(":")[0]
        (tmp_path / "backup" / "snapshots" / first / "snapshot.json").write_bytes(b"rotten")
        [score_map] = (settings.history / "maps").rglob("*.npy")
        score_map.unlink()
        result = run("create", "--keep", "1")
        assert f"{first}/snapshot.json cannot be read" in failed(result)
        assert "missing: the picture or the map of inspection " in result.stderr
        assert re.match(NAME, result.stdout)
        assert len(list((tmp_path / "backup" / "snapshots").glob("*"))) == 2

    @pytest.mark.parametrize("command", ["list", "verify", "restore"])
    def test_a_folder_that_is_no_backup(self, run: Run, tmp_path: Path, command: str) -> None:
        (tmp_path / "other").mkdir()
        assert "is no backup" in failed(run(command, folder=tmp_path / "other"))

    def test_a_folder_of_something_else(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "letter").touch()
        assert "is no backup and not empty" in failed(run("create", folder=tmp_path / "other"))

    def test_a_snapshot_that_is_not_there(self, run: Run) -> None:
        name = said(run("create")).partition(":")[0]
        assert f"it has {name}" in failed(run("verify", "20200101T000000000Z"))
        assert f"it has {name}" in failed(run("restore", "../x"))

    def test_a_history_that_is_not_there(self, run: Run, tmp_path: Path) -> None:
        assert "there is no history in" in failed(run("create", "--history", tmp_path / "none"))
        assert not (tmp_path / "backup").exists()

    def test_a_database_that_no_server_has_used(self, run: Run, tmp_path: Path) -> None:
        """As `flowgauge keys create` makes it without a server's variables; --keep deletes the real ones."""
        said(run("create"))
        typo = tmp_path / "typo"
        database = Database(f"sqlite:///{typo / 'history.sqlite'}")
        database.prepare()
        database.close()
        assert "was never used by a server" in failed(run("create", "--history", typo, "--keep", "1"))
        [name] = BackupFolder(tmp_path / "backup").names()
        assert BackupFolder(tmp_path / "backup").snapshot(name).rows["inspections"] == 1

    def test_a_models_folder_that_is_not_there(self, run: Run, tmp_path: Path) -> None:
        assert "there is no models folder" in failed(run("create", "--models", tmp_path / "none"))
        assert not (tmp_path / "backup").exists()

    def test_a_history_that_is_not_empty(self, run: Run) -> None:
        said(run("create"))
        assert "is not empty" in failed(run("restore"))

    def test_keeping_none(self, run: Run) -> None:
        said(run("create"))
        assert run("prune", "--keep", "0").exit_code == 2
        assert run("prune").exit_code == 2
