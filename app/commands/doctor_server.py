"""What `flowgauge doctor --url` finds out about a server, as a client of it."""

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
from app.client.calls import Call
from app.client.errors import unexpected
from app.commands.checks import Check
from app.http.loopback import is_loopback

_LEAST_DAYS: Final = 30  # a certificate that ends sooner is noted


def examine_server(url: str, key: str | None, ca: Path | None) -> Iterator[Check]:
    """Look at a server step by step, until one fails that the others need.

    Images that are sent to its models are not kept there.

    Args:
        url: where it is, such as https://inspection.plant.example:8000.
        key: a key of it, or None.
        ca: PEM file of the authority that signed its certificate; None for those the system trusts.
    """
    try:
        client = Client(url, key, ca=ca, patience=0)
    except AddressError as error:
        yield Check(error.what, "problem", str(error))
        return
    with client:
        try:
            yield from _service(client)
        except FlowGaugeError as error:
            said = str(error)
            if isinstance(error, UnreachableError) and not isinstance(error, UntrustedError):
                said += (
                    ": is the name right, the machine on, a firewall between; does the server run, and "
                    "listen on the network (FLOWGAUGE_HOST)?"
                )
            yield Check("service", "problem", said)
            return
        try:
            _get(client, "/health/ready")
            yield Check("ready", "ok", "every active model is loaded")
        except FlowGaugeError as error:
            yield Check("ready", "problem", f"{error} The server's log has more.")
        try:
            yield from _key_and_models(client)
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


def _service(client: Client) -> Iterator[Check]:
    start = time.perf_counter()
    response = client.send(Call("GET", "/health/live", lambda response: response))
    yield Check("network", "ok", f"{client.url} answers in {1000 * (time.perf_counter() - start):.1f} ms")
    encrypted = response.extensions["network_stream"].get_extra_info("ssl_object")
    if encrypted is not None:
        ends = ssl.cert_time_to_seconds(str(encrypted.getpeercert()["notAfter"]))
        days = math.floor((ends - time.time()) / 86400)
        said = f"{encrypted.version()}, the certificate is valid for {days} more days"
        yield Check("tls", "ok" if days >= _LEAST_DAYS else "note", said)
    elif not is_loopback(response.url.host):
        said = "none: keys and images can be read on the way; see FLOWGAUGE_TLS_CERTIFICATE"
        yield Check("tls", "note", said)
    theirs, ours = _get(client, "/openapi.json").get("info", {}).get("version"), version("flowgauge")
    if _get(client, "/health/live") != {"status": "live"} or theirs is None:
        raise unexpected(response)
    yield Check("version", "ok" if theirs == ours else "note", f"{theirs} there, {ours} here")


def _key_and_models(client: Client) -> Iterator[Check]:
    session = _get(client, "/v1/session")
    if session["key_id"] is None:
        said = "the server has no keys: whoever reaches it may do everything; see flowgauge keys create"
        yield Check("key", "note", said)
    else:
        only = f", for {', '.join(session['categories'])} alone" if session["categories"] else ""
        said = f"{session['name']} ({session['key_id']}), role {session['role']}{only}"
        yield Check("key", "ok", said)
    models = client.models()
    if not models:
        none = "there are none yet: flowgauge train, or upload one"
        said = "there are none that this key is for" if session["categories"] else none
        yield Check("models", "note", said)
    for model in models:
        name = f"model {model.category}"
        if model.active is None:
            yield Check(name, "note", "no version is active")
        elif "predict" not in session["permissions"]:
            yield Check(name, "note", f"{model.active}; not tried, as the key may not predict")
        else:
            yield _predict(client, name, model.category)


def _predict(client: Client, name: str, category: str) -> Check:
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (128, 128, 128)).save(file, "PNG")
    start = time.perf_counter()
    try:
        answer = client.inspect(category, file.getvalue(), store=False)
    except FlowGaugeError as error:
        return Check(name, "problem", str(error))
    took = 1000 * (time.perf_counter() - start)
    return Check(name, "ok", f"{answer.model.version} answers in {took:.0f} ms, {answer.engine}")
