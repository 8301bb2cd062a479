"""Certificates for tests of TLS, made with openssl, and a server that has one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from tests.support.serving import running


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate that signs itself, and of its private key."""

    certificate: Path
    key: Path


def make_certificate(folder: Path, *names: str, days: int = 90) -> Certificate:
    """Make a certificate, such as for DNS:localhost and IP:127.0.0.1."""
    made = Certificate(folder / "server.pem", folder / "server.key")
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(days)]
    subject = ["-subj", "/CN=flowgauge", "-addext", f"subjectAltName={','.join(names)}"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(["openssl", "req", "-x509", *options, *subject, *files], check=True, capture_output=True)
    return made


@contextmanager
def serving_tls(app: FastAPI, made: Certificate) -> Iterator[str]:
    """Serve an app over TLS on a free port of 127.0.0.1; gives its URL."""
    config = uvicorn.Config(app, port=0, log_config=None, ssl_certfile=made.certificate, ssl_keyfile=made.key)
    with running(config) as port:
        yield f"https://127.0.0.1:{port}"
