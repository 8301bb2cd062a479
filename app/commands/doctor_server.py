"""Checks of a server for `flowgauge doctor --url`, made as its client."""

import io
import math
import ssl
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import httpx
from PIL import Image

from app.client import AddressError, Client, FlowGaugeError, UnreachableError, UntrustedError
from app.client.errors import unexpected
from app.client.request import Call
from app.commands.checks import Check
from app.http.loopback import is_loopback

_MIN_CERTIFICATE_DAYS: Final = 30  # less is a note


def check_server(url: str, key: str | None, ca: Path | None) -> Iterator[Check]:
    """Check a server step by step, until a step fails that the others need.

    The server stores nothing of the images that are sent to its models.
    """
    try:
        client = Client(url, key, ca=ca, patience=0)
    except AddressError as error:
        yield Check(error.what, "problem", str(error))
        return
    with client:
        try:
            yield from _check_service(client)
        except FlowGaugeError as error:
            said = str(error)
            if isinstance(error, UnreachableError) and not isinstance(error, UntrustedError):
                said += (
                    ": check the name, the machine and firewalls, and that the server runs and listens on "
                    "the network (FLOWGAUGE_HOST)"
                )
            yield Check("service", "problem", said)
            return
        try:
            _get(client, "/health/ready")
            yield Check("ready", "ok", "every active model is loaded")
        except FlowGaugeError as error:
            yield Check("ready", "problem", f"{error} The server's log has more.")
        try:
            yield from _check_key_and_models(client)
        except FlowGaugeError as error:
            yield Check("key", "problem", f"{error} --key or FLOWGAUGE_KEY gives one.")


def _get(client: Client, path: str) -> dict[str, Any]:
    def read(response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise unexpected(response)
        return answer

    return client.send(Call("GET", path, read))


def _check_service(client: Client) -> Iterator[Check]:
    start = time.perf_counter()
    response = client.send(Call("GET", "/health/live", lambda response: response))
    yield Check("network", "ok", f"{client.url} answers in {1000 * (time.perf_counter() - start):.1f} ms")
    encrypted = response.extensions["network_stream"].get_extra_info("ssl_object")
    if encrypted is not None:
        ends = ssl.cert_time_to_seconds(str(encrypted.getpeercert()["notAfter"]))
        days = math.floor((ends - time.time()) / 86400)
        said = f"{encrypted.version()}, the certificate is valid for {days} more days"
        yield Check("tls", "ok" if days >= _MIN_CERTIFICATE_DAYS else "note", said)
    elif not is_loopback(response.url.host):
        said = "none: keys and images can be read on the network; see FLOWGAUGE_TLS_CERTIFICATE"
        yield Check("tls", "note", said)
    theirs, ours = _get(client, "/openapi.json").get("info", {}).get("version"), version("flowgauge")
    if _get(client, "/health/live") != {"status": "live"} or theirs is None:
        raise unexpected(response)
    yield Check("version", "ok" if theirs == ours else "note", f"server {theirs}, this machine {ours}")


def _check_key_and_models(client: Client) -> Iterator[Check]:
    session = _get(client, "/v1/session")
    if session["key_id"] is None:
        said = "the server has no keys: everybody who reaches it may do everything; see flowgauge keys create"
        yield Check("key", "note", said)
    else:
        only = f", only for {', '.join(session['categories'])}" if session["categories"] else ""
        said = f"{session['name']} ({session['key_id']}), role {session['role']}{only}"
        yield Check("key", "ok", said)
    models = client.models()
    if not models:
        none = "none yet: train one with flowgauge train, or upload one"
        said = "none that this key may use" if session["categories"] else none
        yield Check("models", "note", said)
    for model in models:
        name = f"model {model.category}"
        if model.active is None:
            yield Check(name, "note", "no version is active")
        elif "predict" not in session["permissions"]:
            yield Check(name, "note", f"{model.active}; not tried: the key may not predict")
        else:
            yield _check_prediction(client, name, model.category)


def _check_prediction(client: Client, name: str, category: str) -> Check:
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (128, 128, 128)).save(file, "PNG")
    start = time.perf_counter()
    try:
        answer = client.inspect(category, file.getvalue(), store=False)
    except FlowGaugeError as error:
        return Check(name, "problem", str(error))
    took = 1000 * (time.perf_counter() - start)
    return Check(name, "ok", f"{answer.model.version} answers in {took:.0f} ms, {answer.engine}")
