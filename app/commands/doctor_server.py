"""What `flowgauge doctor --url` finds out about a server, from the network inwards."""

import io
import math
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from PIL import Image

from app.client.connection import AddressError, connection
from app.commands.checks import Check
from app.loopback import is_loopback

_CONNECT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 60  # a model may have to be loaded first
_LEAST_DAYS: Final = 30  # a certificate that ends sooner is noted


def examine_server(url: str, key: str | None, ca: Path | None) -> Iterator[Check]:
    """Look at a server step by step, until one fails that the others need.

    Pictures that are sent to its models are not kept there.

    Args:
        url: where it is, such as https://inspection.plant.example:8000.
        key: a key of it, or None.
        ca: PEM file of the authority that signed its certificate; None for those the system trusts.
    """
    try:
        way = connection(url, key, ca, _ANSWER_SECONDS)
    except AddressError as error:
        yield Check({"url": "address", "ca": "tls"}.get(error.what, error.what), "problem", str(error))
        return
    # No proxy of the environment: what is looked at is the way to the server itself.
    with httpx.Client(**way.arguments | {"trust_env": False}) as client:
        server = _Server(
            httpx.URL(way.url), way.arguments["verify"], client, bool(key and key.strip()), ca is not None
        )
        needed = (server.network, server.tls, server.service)
        for step in (*needed, server.readiness, server.who, server.models):
            failed = False
            try:
                for check in step():
                    yield check
                    failed |= check.state == "problem"
            except httpx.HTTPError as error:
                yield Check("service", "problem", f"the connection is there, but no answer: {error}")
                return
            if failed and step in needed:
                return


@dataclass
class _Server:
    address: httpx.URL
    context: ssl.SSLContext
    client: httpx.Client
    has_key: bool
    has_ca: bool
    may_predict: bool = False
    for_some: bool = False  # the key is for some categories alone

    @property
    def port(self) -> int:
        return self.address.port or (443 if self.address.scheme == "https" else 80)

    def network(self) -> Iterator[Check]:
        host, port = self.address.host, self.port
        start = time.perf_counter()
        try:
            socket.create_connection((host, port), _CONNECT_SECONDS).close()
        except OSError as error:
            yield Check(
                "network",
                "problem",
                f"{host} port {port} cannot be reached ({error}): is the name right, the machine on, a "
                "firewall between; does the server run, and listen on the network (FLOWGAUGE_HOST)?",
            )
        else:
            yield Check("network", "ok", f"{host} port {port}, {1000 * (time.perf_counter() - start):.1f} ms")

    def tls(self) -> Iterator[Check]:
        if self.address.scheme == "http":
            if not is_loopback(self.address.host):
                said = "none: keys and pictures can be read on the way; see FLOWGAUGE_TLS_CERTIFICATE"
                yield Check("tls", "note", said)
            return
        try:
            with (
                socket.create_connection((self.address.host, self.port), _CONNECT_SECONDS) as plain,
                self.context.wrap_socket(plain, server_hostname=self.address.host) as wrapped,
            ):
                certificate, protocol = wrapped.getpeercert() or {}, wrapped.version()
        except ssl.SSLCertVerificationError as error:
            remedy = "" if self.has_ca else "; --ca names the file of an authority that is the plant's own"
            yield Check("tls", "problem", f"the certificate is not accepted: {error.verify_message}{remedy}")
            return
        except ssl.SSLError as error:
            yield Check("tls", "problem", f"no TLS is spoken there ({error.reason}): is it http:// instead?")
            return
        except OSError as error:
            yield Check("tls", "problem", f"the connection broke: {error.strerror or error}")
            return
        days = math.floor((ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400)
        if days < _LEAST_DAYS:
            yield Check(
                "tls", "note", f"the certificate ends in {days} days: put a new one there and restart"
            )
        else:
            yield Check("tls", "ok", f"{protocol}, the certificate is valid for {days} more days")

    def service(self) -> Iterator[Check]:
        response = self.client.get("/health/live")
        document = _object(self.client.get("/openapi.json")).get("info", {})
        if _object(response) != {"status": "live"} or document.get("title") != "FlowGauge":
            said = f"something answers (status {response.status_code}), but it is no FlowGauge"
            yield Check("service", "problem", said)
            return
        theirs, ours = document.get("version"), version("flowgauge")
        if theirs == ours:
            yield Check("version", "ok", ours)
        else:
            yield Check("version", "note", f"{theirs} there, {ours} here")

    def readiness(self) -> Iterator[Check]:
        response = self.client.get("/health/ready")
        if response.status_code == 200:
            yield Check("ready", "ok", "every active model is loaded")
        else:
            yield Check("ready", "problem", f"{_reason(response)} The server's log has more.")

    def who(self) -> Iterator[Check]:
        response = self.client.get("/v1/session")
        if response.status_code == 401:
            missing = "the server asks for a key: give one with --key or FLOWGAUGE_KEY"
            yield Check("key", "problem", _reason(response) if self.has_key else missing)
            return
        if response.status_code != 200:
            yield Check("key", "problem", _reason(response))
            return
        answer = response.json()
        self.may_predict = "predict" in answer["permissions"]
        if answer["key_id"] is None:
            said = "the server has no keys: whoever reaches it may do everything; see flowgauge keys create"
            yield Check("key", "note", said)
            return
        self.for_some = bool(answer["categories"])
        only = f", for {', '.join(answer['categories'])} alone" if answer["categories"] else ""
        yield Check("key", "ok", f"{answer['name']} ({answer['key_id']}), role {answer['role']}{only}")

    def models(self) -> Iterator[Check]:
        response = self.client.get("/v1/models")
        if response.status_code == 401:
            return  # said already
        models = _object(response).get("models")
        if models is None:
            yield Check("models", "problem", _reason(response))
            return
        if not models:
            none = "there are none yet: flowgauge train, or upload one"
            yield Check("models", "note", "there are none that this key is for" if self.for_some else none)
        for model in models:
            category, active = model["category"], model["active"]
            if active is None:
                yield Check(f"model {category}", "note", "no version is active")
            elif self.may_predict:
                yield self._predict(category)
            else:
                yield Check(f"model {category}", "note", f"{active}; not tried, as the key may not predict")

    def _predict(self, category: str) -> Check:
        name = f"model {category}"
        file = io.BytesIO()
        Image.new("RGB", (256, 256), (128, 128, 128)).save(file, "PNG")
        start = time.perf_counter()
        try:
            response = self.client.post(
                f"/v1/models/{quote(category, safe='')}/predict",
                params={"store": "false"},
                content=file.getvalue(),
                headers={"Content-Type": "image/png"},
            )
        except httpx.HTTPError as error:
            return Check(name, "problem", f"no answer: {error}")
        if response.status_code != 200:
            return Check(name, "problem", _reason(response))
        answer = response.json()
        took = 1000 * (time.perf_counter() - start)
        return Check(name, "ok", f"{answer['model']['version']} answers in {took:.0f} ms, {answer['engine']}")


def _reason(response: httpx.Response) -> str:
    """The server's own words for a failure."""
    return str(_object(response).get("detail", f"the answer has status {response.status_code}"))


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
