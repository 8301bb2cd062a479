"""What deploy/ promises to systemd; systemd itself ignores what stands in the wrong section."""

import shlex
from configparser import ConfigParser
from pathlib import Path

import typer

from app.commands.backup import app

DEPLOY = Path(__file__).parents[1] / "deploy"


def read(name: str) -> ConfigParser:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.read(DEPLOY / name)
    return unit


def test_the_service_comes_back_however_long_its_database_takes() -> None:
    unit = read("flowgauge.service")
    assert "postgresql.service" in unit["Unit"]["After"]
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["RestartSec"]) >= 1


def test_wrong_settings_are_not_tried_again() -> None:
    """`flowgauge serve` ends with 2 for them, see its tests."""
    unit = read("flowgauge.service")
    assert unit["Service"]["RestartPreventExitStatus"] == "2"


def test_a_backup_is_of_what_the_service_has_and_goes_where_it_may_write() -> None:
    service, backup = read("flowgauge.service")["Service"], read("flowgauge-backup.service")
    for setting in ("User", "Group", "EnvironmentFile", "StateDirectory", "WorkingDirectory"):
        assert backup["Service"][setting] == service[setting]
    program, *arguments = shlex.split(backup["Service"]["ExecStart"])
    assert program == shlex.split(service["ExecStart"])[0]
    assert arguments[:2] == ["backup", "create"]
    command = typer.main.get_command(app).commands["create"]  # type: ignore[attr-defined]
    given = command.make_context("create", arguments[2:]).params
    assert (str(given["folder"]), given["keep"]) == (backup["Service"]["ReadWritePaths"], 14)
    assert backup["Unit"]["RequiresMountsFor"] == backup["Service"]["ReadWritePaths"]


def test_the_timer_makes_up_for_nights_that_the_machine_was_off() -> None:
    timer = read("flowgauge-backup.timer")
    assert (timer["Timer"]["Persistent"], timer["Install"]["WantedBy"]) == ("yes", "timers.target")
