"""The server behind a real nginx, with deploy/nginx.conf: images, logins, the live stream."""

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from app.schemas.access import Role
from tests.support.certificates import Certificate, make_certificate
from tests.support.event_stream import listening
from tests.support.ports import reserved_port
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.system.processes import first_key

DEPLOY = Path(__file__).parents[2] / "deploy" / "nginx.conf"
PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NAME = "/etc/nginx/inspection.plant.example"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no nginx; on Debian: apt-get install nginx")


@contextmanager
def nginx(folder: Path, upstream: int, tls: Certificate) -> Iterator[tuple[int, int]]:
    """nginx with our file on two free ports, with TLS and without, before a server on another."""
    (one, port), (other, plain) = reserved_port(), reserved_port()
    ours = DEPLOY.read_text()
    for before, after in {
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen [::]:80;": "",  # a machine that tests may have none
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "listen [::]:443 ssl;": "",
        f"{NAME}.pem": str(tls.certificate),
        f"{NAME}.key": str(tls.key),
    }.items():
        assert ours.count(before) == 1
        ours = ours.replace(before, after)
    folder.mkdir()
    # As root its workers would become a user who may not enter the tests' folder.
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"{user} daemon off; pid {folder / 'pid'}; error_log stderr;"
        f"events {{}} http {{ access_log off; {temporary}\n{ours} }}\n"
    )
    assert PROGRAM is not None
    with one, other, (folder / "log").open("w") as log:
        process = subprocess.Popen([PROGRAM, "-p", folder, "-c", configuration], stderr=log)
        try:
            eventually((folder / "pid").exists)
            yield port, plain
        finally:
            process.terminate()
            assert process.wait(60) == 0, (folder / "log").read_text()


def test_documented_nginx_configuration_works(tiny_bundle_store: Path, tmp_path: Path) -> None:
    server = Server(tiny_bundle_store, tmp_path / "work", trusted_proxies="127.0.0.1")
    key = first_key(server.history, Role.ADMIN)
    tls = make_certificate(tmp_path, "DNS:localhost", "IP:127.0.0.1")
    with server, nginx(tmp_path / "nginx", server.port, tls) as (port, plain):
        base = f"https://127.0.0.1:{port}"
        trust = ssl.create_default_context(cafile=tls.certificate)
        client = partial(httpx.Client, base_url=base, verify=trust, timeout=60, trust_env=False)
        with client() as browser, client(headers={"X-API-Key": key}) as line:
            eventually(lambda: _answers(browser))
            answer = httpx.get(f"http://127.0.0.1:{plain}/wall?x=1", trust_env=False)
            assert answer.status_code == 301
            assert answer.headers["location"] == "https://127.0.0.1/wall?x=1"
            # What a client says of itself is not passed on; the session's cookie is for TLS alone.
            answer = browser.post("/login", json={"key": key}, headers={"X-Forwarded-For": "192.0.2.6"})
            assert answer.status_code == 200, answer.text
            assert "secure" in answer.headers["set-cookie"].lower()
            page = browser.get("/", headers={"Origin": base})
            assert page.status_code == 200
            said = server.log.read_text()
            assert "192.0.2.6" not in said
            assert "FLOWGAUGE_TRUSTED_PROXIES does" not in said

            # Larger than what nginx takes by itself; and the live stream has it at once.
            noise = np.random.default_rng(0).integers(0, 256, (1200, 1000, 3), dtype=np.uint8)
            picture = cv2.imencode(".png", noise)[1].tobytes()
            assert len(picture) > 2**21
            with listening(line) as events:
                next(events)
                answer = line.post("/v1/models/tiny/predict", content=picture)
                assert answer.status_code == 200, answer.text
                heard = next(event for event in events if event.kind == "inspection")
            assert heard.data["inspection_id"] == answer.json()["inspection_id"]

            # What is too large is refused by the server, in its words.
            answer = line.post("/v1/models/tiny/predict", content=bytes(33 * 2**20))
            assert answer.status_code == 413
            assert answer.headers["content-type"] == "application/problem+json"


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False
