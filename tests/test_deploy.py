"""What deploy/ promises to systemd; systemd itself ignores what stands in the wrong section."""

from configparser import ConfigParser
from pathlib import Path

UNIT = Path(__file__).parents[1] / "deploy" / "flowgauge.service"


def test_the_service_comes_back_however_long_its_database_takes() -> None:
    unit = ConfigParser(strict=False)
    unit.read(UNIT)
    assert "postgresql.service" in unit["Unit"]["After"]
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["RestartSec"]) >= 1


def test_wrong_settings_are_not_tried_again() -> None:
    """`flowgauge serve` ends with 2 for them, see its tests."""
    unit = ConfigParser(strict=False)
    unit.read(UNIT)
    assert unit["Service"]["RestartPreventExitStatus"] == "2"
