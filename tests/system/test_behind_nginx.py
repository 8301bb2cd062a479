"""The server behind a real nginx, with deploy/nginx.conf: images, logins, the live stream."""

import ssl
from functools import partial
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from app.schemas.access import Role
from tests.support.certificates import make_certificate
from tests.support.event_stream import listening
from tests.support.nginx import PROGRAM, nginx
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.system.processes import first_key

DEPLOY = Path(__file__).parents[2] / "deploy" / "nginx.conf"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no nginx; on Debian: apt-get install nginx")


def test_documented_nginx_configuration_works(tiny_bundle_store: Path, tmp_path: Path) -> None:
    server = Server(tiny_bundle_store, tmp_path / "work", trusted_proxies="127.0.0.1")
    key = first_key(server.history, Role.ADMIN)
    tls = make_certificate(tmp_path, "DNS:localhost", "IP:127.0.0.1")
    with server, nginx(tmp_path / "nginx", DEPLOY, {"127.0.0.1:8000": server.port}, tls) as (port, plain):
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
