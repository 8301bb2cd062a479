import subprocess
from pathlib import Path

import pytest

from app.auth.exposure import ExposureError, require_certificate, require_keys_on_network
from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.database.engine import Database
from app.schemas.access import Role
from app.settings import Settings
from tests.support.certificates import Certificate, make_certificate


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str, tmp_path: Path) -> None:
    require_keys_on_network(Settings(host=host))
    assert not (tmp_path / "history").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "line-pc.example", "", "localhost.example"])  # noqa: S104
def test_network_needs_a_key(host: str) -> None:
    settings = Settings(host=host)
    with pytest.raises(ExposureError) as caught:
        require_keys_on_network(settings)
    message = str(caught.value)
    assert repr(host) in message
    assert "flowgauge keys create" in message
    assert "FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true" in message
    database = Database(settings.database_url)
    database.prepare()
    key, _ = KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "first")
    require_keys_on_network(settings)
    # The service then asks for a key, if nobody has one: closed is safe.
    KeyStore(database).revoke(COMMAND_LINE, key.id)
    require_keys_on_network(settings)
    database.close()


@pytest.mark.parametrize("proxies", ["127.0.0.1", "::1, 10.0.0.0/8"])
def test_local_proxy_needs_a_key(proxies: str) -> None:
    """Otherwise each of its clients would be an administrator."""
    settings = Settings(host="127.0.0.1", trusted_proxies=proxies)
    with pytest.raises(ExposureError) as caught:
        require_keys_on_network(settings)
    message = str(caught.value)
    assert f"FLOWGAUGE_TRUSTED_PROXIES names {proxies}" in message
    assert "flowgauge keys create --role admin" in message
    database = Database(settings.database_url)
    database.prepare()
    KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "first")
    database.close()
    require_keys_on_network(settings)


def test_network_without_keys_can_be_allowed(tmp_path: Path) -> None:
    require_keys_on_network(Settings(host="0.0.0.0", allow_unauthenticated_network=True))  # noqa: S104
    require_keys_on_network(Settings(trusted_proxies="127.0.0.1", allow_unauthenticated_network=True))
    assert not (tmp_path / "history").exists()


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "DNS:localhost")


def complaint(certificate: Path, key: Path) -> str:
    with pytest.raises(ExposureError) as caught:
        require_certificate(Settings(tls_certificate=certificate, tls_key=key))
    return str(caught.value)


def test_certificate_with_its_key_is_accepted(made: Certificate) -> None:
    require_certificate(Settings(tls_certificate=made.certificate, tls_key=made.key))


def test_missing_tls_files_are_refused(made: Certificate, tmp_path: Path) -> None:
    assert complaint(made.certificate, tmp_path / "no.key").endswith(": No such file or directory")


def test_invalid_tls_files_are_refused(made: Certificate, tmp_path: Path) -> None:
    (tmp_path / "picture.pem").write_bytes(b"no certificate")
    assert "must be PEM files" in complaint(tmp_path / "picture.pem", made.key)


def test_key_of_another_certificate_is_refused(made: Certificate, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", "DNS:localhost")
    assert complaint(made.certificate, other.key).endswith(": KEY_VALUES_MISMATCH")


def test_key_with_a_passphrase_is_refused(made: Certificate, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret"]
    subprocess.run([*command, "-in", made.key, "-out", locked], check=True, capture_output=True)
    assert "without a passphrase" in complaint(made.certificate, locked)
