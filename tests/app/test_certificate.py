"""Files of TLS that a server could use, and those that it could not."""

import subprocess
from pathlib import Path

import pytest

from app.certificate import CertificateError, require_certificate
from app.settings import Settings
from tests.support.certificates import Certificate, make_certificate


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "DNS:localhost")


def complaint(certificate: Path, key: Path) -> str:
    with pytest.raises(CertificateError) as caught:
        require_certificate(Settings(tls_certificate=certificate, tls_key=key))
    return str(caught.value)


def test_a_certificate_and_its_key(made: Certificate) -> None:
    require_certificate(Settings(tls_certificate=made.certificate, tls_key=made.key))


def test_files_that_are_not_there(made: Certificate, tmp_path: Path) -> None:
    assert complaint(made.certificate, tmp_path / "no.key").endswith(": No such file or directory")


def test_files_that_are_none(made: Certificate, tmp_path: Path) -> None:
    (tmp_path / "picture.pem").write_bytes(b"no certificate")
    assert "must be PEM files" in complaint(tmp_path / "picture.pem", made.key)


def test_the_key_of_another_certificate(made: Certificate, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", "DNS:localhost")
    assert complaint(made.certificate, other.key).endswith(": KEY_VALUES_MISMATCH")


def test_a_key_with_a_passphrase(made: Certificate, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret"]
    subprocess.run([*command, "-in", made.key, "-out", locked], check=True, capture_output=True)
    assert "without a passphrase" in complaint(made.certificate, locked)
