import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

import flowgauge
from app.auth.key_store import PATTERN
from app.commands.keys import app
from app.main import create_app
from app.settings import Settings
from tests.app.support.guard import SESSION_URL


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def create(*arguments: str) -> str:
    result = run("create", *arguments)
    assert result.exit_code == 0, result.output
    [key] = result.stdout.split()
    assert re.fullmatch(PATTERN, key)
    assert key not in result.stderr
    return key


def listed() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(run("list", "--json").stdout)
    return rows


def test_a_key_made_before_the_first_start_opens_the_service(tmp_path: Path) -> None:
    assert not (tmp_path / "history").exists()
    key = create("--role", "line", "--name", "line 3")
    (tmp_path / "models").mkdir()
    with TestClient(create_app(Settings(models=tmp_path / "models"))) as client:
        assert client.get(SESSION_URL).status_code == 401
        assert client.get(SESSION_URL, headers={"X-API-Key": key}).json()["name"] == "line 3"
        # The service runs; what the command changes is seen after a moment, or at once when it is asked.
        run("revoke", key[3:19])
        client.app.state.keyring.reload()  # type: ignore[attr-defined]
        assert client.get(SESSION_URL, headers={"X-API-Key": key}).status_code == 401


def test_works_on_the_database_that_the_server_would_use(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWGAUGE_DATABASE", database_url)
    key = create("--role", "admin", "--name", "first")
    assert [row["id"] for row in listed()] == [key[3:19]]
    assert not (tmp_path / "history").exists()


def test_all_that_can_be_said_of_a_key() -> None:
    create(
        *("--role", "operator", "--name", "shift", "--category", "bottle", "--category", "grid"),
        *("--expires-days", "2", "--requests-per-minute", "60"),
    )
    [row] = listed()
    assert (row["role"], row["name"], row["valid"]) == ("operator", "shift", True)
    assert (row["categories"], row["requests_per_minute"]) == (["bottle", "grid"], 60)
    assert row["expires"] is not None


def test_the_list_for_people_shows_no_secret_and_no_trick() -> None:
    key = create("--role", "line", "--name", "it's \\ a name")
    run("revoke", create("--role", "viewer", "--name", "gone")[3:19])
    lines = run("list").stdout.splitlines()
    assert len(lines) == 2
    assert key[20:] not in "".join(lines)
    assert key[3:19] in lines[0]
    assert "valid" in lines[0]
    assert "has been revoked" in lines[1]


def test_missing_database_is_an_error_and_is_not_created(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where a variable of the server is missing: "there are no keys" would be taken for its keys."""
    monkeypatch.delenv("FLOWGAUGE_DATABASE", raising=False)
    typo = tmp_path / "typo"
    for command in (["list"], ["list", "--json"], ["revoke", "0000000000000000"]):
        result = run(*command, "--history", str(typo))
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"there is no database in {typo}" in str(result.exception)
    assert not typo.exists()
    said = run("create", "--role", "admin", "--name", "first", "--history", str(typo)).stderr
    assert "That database is new" in said
    assert "new" not in run("create", "--role", "admin", "--name", "second", "--history", str(typo)).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--role", "line", "--name", ""], "at least 1 character"),
        (["create", "--role", "line", "--name", "x", "--category", "../x"], "categories.0"),
        (["create", "--role", "line", "--name", "x", "--expires-days", "0"], "got '0'"),
        (["revoke", "0000000000000000"], "There is no key"),
    ],
)
def test_a_refusal_is_one_line_and_changes_nothing(arguments: list[str], message: str) -> None:
    create("--role", "viewer", "--name", "there before")
    before = listed()
    done = CliRunner().invoke(flowgauge.app, ["keys", *arguments])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert listed() == before
