"""The systemd units of deploy/: systemd ignores settings in the wrong section."""

import re
import shlex
import shutil
import subprocess
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
import typer

from app.client.watch.command import watch
from app.commands.backup import app

DEPLOY = Path(__file__).parents[1] / "deploy"


def read(name: str) -> ConfigParser:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.read(DEPLOY / name)
    return unit


def test_service_restarts_until_its_database_is_there() -> None:
    unit = read("flowgauge.service")
    assert "postgresql.service" in unit["Unit"]["After"]
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["RestartSec"]) >= 1


def test_wrong_settings_cause_no_restart() -> None:
    unit = read("flowgauge.service")
    assert unit["Service"]["RestartPreventExitStatus"] == "2"


def test_backup_reads_the_service_and_may_write_its_folder() -> None:
    service, backup = read("flowgauge.service")["Service"], read("flowgauge-backup.service")
    for setting in ("User", "Group", "EnvironmentFile", "StateDirectory", "WorkingDirectory"):
        assert backup["Service"][setting] == service[setting]
    program, *arguments = shlex.split(backup["Service"]["ExecStart"])
    assert program == shlex.split(service["ExecStart"])[0]
    assert arguments[:2] == ["backup", "create"]
    command = typer.main.get_command(app).commands["create"]  # type: ignore[attr-defined]
    given = command.make_context("create", arguments[2:]).params
    assert (str(given["folder"]), given["keep"]) == (backup["Service"]["ReadWritePaths"], 14)
    disk = f"+/usr/bin/mountpoint --quiet {backup['Service']['ReadWritePaths']}"
    assert backup["Service"]["ExecStartPre"] == disk


def test_service_can_see_a_gpu() -> None:
    """Before systemd 252.8, ProtectClock implied DeviceAllow, which denied all other devices."""
    service = read("flowgauge.service")["Service"]
    assert not {"protectclock", "privatedevices", "deviceallow", "devicepolicy"} & set(service)


def test_watcher_accepts_its_options_and_may_write() -> None:
    service = read("flowgauge-watch.service")["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    packed = tomllib.loads((DEPLOY.parent / "clients" / "pyproject.toml").read_text())
    assert Path(program).name in packed["project"]["scripts"]
    commands = typer.Typer()
    commands.command()(watch)
    given = typer.main.get_command(commands).make_context("watch", arguments).params
    assert [str(given["folder"]), str(given["move_to"])] == service["ReadWritePaths"].split()
    assert given["key"] is None  # every user can read a command line


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOY.glob("*.service")))
def test_systemd_accepts_every_line(tmp_path: Path, name: str) -> None:
    text = re.sub(r"(?m)^(ExecStart=)\S+", rf"\1{shutil.which('true')}", (DEPLOY / name).read_text())
    (tmp_path / name).write_text(text)
    told = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True, check=False
    )
    assert not [line for line in told.stderr.splitlines() if name in line]
