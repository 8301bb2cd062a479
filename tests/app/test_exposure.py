from pathlib import Path

import pytest

from app.access import COMMAND_LINE, Role
from app.database.engine import Database
from app.exposure import ExposureError, require_keys_on_network
from app.keys import Keys
from app.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_keys_and_nothing_is_looked_into(host: str, tmp_path: Path) -> None:
    require_keys_on_network(Settings(host=host))
    assert not (tmp_path / "history").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "line-pc.example", "", "localhost.example"])  # noqa: S104
def test_the_network_needs_a_key(host: str) -> None:
    settings = Settings(host=host)
    with pytest.raises(ExposureError) as caught:
        require_keys_on_network(settings)
    message = str(caught.value)
    assert repr(host) in message
    assert "flowgauge keys create" in message
    assert "FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true" in message
    database = Database(settings.database_url)
    database.prepare()
    key, _ = Keys(database).create(COMMAND_LINE, Role.ADMIN, "first")
    require_keys_on_network(settings)
    # The service then asks for a key, if nobody has one: closed is safe.
    Keys(database).revoke(COMMAND_LINE, key.id)
    require_keys_on_network(settings)
    database.close()


@pytest.mark.parametrize("proxies", ["127.0.0.1", "::1, 10.0.0.0/8"])
def test_a_proxy_on_this_machine_needs_a_key(proxies: str) -> None:
    """Or everybody whom it lets through would be an administrator."""
    settings = Settings(host="127.0.0.1", trusted_proxies=proxies)
    with pytest.raises(ExposureError) as caught:
        require_keys_on_network(settings)
    message = str(caught.value)
    assert f"FLOWGAUGE_TRUSTED_PROXIES names {proxies}" in message
    assert "flowgauge keys create --role admin" in message
    database = Database(settings.database_url)
    database.prepare()
    Keys(database).create(COMMAND_LINE, Role.ADMIN, "first")
    database.close()
    require_keys_on_network(settings)


def test_or_to_be_allowed(tmp_path: Path) -> None:
    require_keys_on_network(Settings(host="0.0.0.0", allow_unauthenticated_network=True))  # noqa: S104
    require_keys_on_network(Settings(trusted_proxies="127.0.0.1", allow_unauthenticated_network=True))
    assert not (tmp_path / "history").exists()
