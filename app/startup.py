"""The process of `flowgauge serve`: checks, port, start message, and the server until it stops."""

import asyncio
import gc
import json
import logging
import math
import socket
from typing import NoReturn

import torch
import typer
import uvicorn

from app.auth.exposure import ExposureError, require_certificate, require_keys_on_network
from app.database.engine import DatabaseError, DatabaseUnavailable, parse_url, redact_url
from app.events.sinks.config import SinkError
from app.events.sinks.manager import describe_sinks
from app.history.history import HistoryError
from app.http.loopback import is_loopback
from app.main import create_app
from app.server import Server
from app.settings import Settings
from app.telemetry import logs
from flows.fastflow.bundle import models_folder
from flows.fastflow.engines.device import DeviceError, pick_device
from flows.fastflow.engines.engine import describe_slow_precision, pick_engine
from flows.fastflow.engines.errors import EngineError

logger = logging.getLogger("flowgauge.serve")


def start(settings: Settings) -> None:
    """Serve until a signal. An error at start ends the process with a message and an exit code."""
    try:
        device = pick_device(settings.device)
        pick_engine(settings.precision, device, settings.engine)
        sinks = describe_sinks(settings)
        parse_url(settings.database_url)
        require_certificate(settings)
        keyed = require_keys_on_network(settings)
    except (DatabaseUnavailable, DeviceError) as error:  # may be temporary: a driver may load later
        _stop(1, str(error))
    except (EngineError, SinkError, DatabaseError, ExposureError) as error:
        _stop(2, str(error))
    categories = models_folder.categories(settings.models)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    logs.configure(settings.log_format)
    with _listen(settings.host, settings.port) as listener:
        _announce(listener, settings, categories, device, sinks, keyed=keyed)
        # Keeps a record of the settings and of the defaults of this version.
        logged = settings.model_dump(mode="json")
        if settings.database is not None:
            logged["database"] = redact_url(parse_url(settings.database))
        logger.info("settings: %s", json.dumps(logged))
        for warning in setting_warnings(settings):
            logger.warning(warning)
        if slower := describe_slow_precision(settings.precision, device):
            logger.warning("FLOWGAUGE_PRECISION: %s", slower)
        _run(settings, listener)


def _stop(code: int, message: str) -> NoReturn:
    typer.secho(f"flowgauge serve: {message}", fg="red", err=True)
    raise typer.Exit(code)


def _run(settings: Settings, listener: socket.socket) -> None:
    app = create_app(settings)
    gc.freeze()  # exclude imported objects from collections, which delay requests
    proxies = settings.trusted_proxies.strip(" ,")
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # RequestContext logs each request with its id
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        # Longer than the cycle of a line and the keep-alive of proxies: a request sent while its connection
        # closes is lost.
        timeout_keep_alive=75,
        # Time for accepted requests to finish: the default deadline and some more.
        timeout_graceful_shutdown=max(30, math.ceil(settings.deadline_ms / 1000) + 5),
    )

    def is_lost() -> bool:
        return app.state.batcher.lost is not None

    server = Server(config, app.state.draining, settings.drain_seconds, is_lost)
    try:
        asyncio.run(server.run_app(app, listener))
    except (HistoryError, DatabaseError) as error:
        _stop(1, str(error))
    logger.info("stopped")
    if is_lost():
        _stop(1, app.state.batcher.lost)  # so that a service manager starts it again


def _listen(host: str, port: int) -> socket.socket:
    """Open the port before the service is built, so that a port in use is reported at once."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # From here on connections wait instead of being refused.
        listener = socket.create_server(address, family=family, backlog=2048)
        # asyncio sets this only on sockets with a protocol number; this one has 0. Without it, the end of a
        # response waits 40 ms for the client to acknowledge its start.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        _stop(
            1,
            f"cannot listen on {host} port {port}: {error.strerror}. Is another server running "
            "there? Stop it, or choose another port with --port.",
        )
    return listener


def _announce(
    listener: socket.socket,
    settings: Settings,
    categories: list[str],
    device: torch.device,
    sinks: list[str],
    *,
    keyed: bool,
) -> None:
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if listener.family == socket.AF_INET6 else host
    url = f"{'https' if settings.tls_key else 'http'}://{host}:{port}"
    # What other servers share comes later.
    names = ", ".join(categories) or ("the shared models" if settings.store else "no model yet")
    serves = f"FlowGauge serves {names} from {settings.models} on {device}"
    if settings.log_format == "json":
        logger.info("%s at %s", serves, url)
        for sink in sinks:
            logger.info("inspections go to %s", sink)
        return
    lines = [serves, f"  in a browser   {url}/", f"  documentation  {url}/docs"]
    if categories:
        predict = f"{url}/v1/models/{categories[0]}/predict"
        curl = ('curl -H "X-API-Key: $KEY"' if keyed else "curl") + " -F file=@part.png"
        lines.append(f"  decision       {curl} {predict}")
        lines.append(f"  overlay        {curl} -H 'Accept: image/png' {predict} -o part.png")
    elif settings.store is None:  # a copy takes none
        train = f"flowgauge train --data DIR --category NAME --models {settings.models}"
        lines.append(f"  a model        {train}")
    lines += [f"  tells          {sink}" for sink in sinks]
    typer.echo("\n".join([*lines, "Ctrl-C stops it."]))


def setting_warnings(settings: Settings) -> list[str]:
    """Describe risks of the settings, each with its remedy."""
    warnings = []
    if settings.unlimited_retention:
        unlimited, alternative = "the history", "FLOWGAUGE_RETENTION_BYTES, or "
        if settings.retention_bytes is not None:
            unlimited, alternative = "the database rows, which stay when their images are deleted", ""
        warnings.append(
            f"nothing limits {unlimited}: inspections of some decisions are never deleted. When the disk is "
            f"full, predictions are refused. Set {alternative}{', '.join(settings.unlimited_retention)}."
        )
    if settings.tls_key is None and not is_loopback(settings.host):
        warnings.append(
            "there is no TLS: keys and images can be read on the network. Set FLOWGAUGE_TLS_CERTIFICATE and "
            "FLOWGAUGE_TLS_KEY, or let a proxy with TLS on this machine be the only way to "
            f"{settings.host}."
        )
    return warnings
