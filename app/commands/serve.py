"""`flowgauge serve`: the inspection service on this machine."""

import gc
import inspect
import json
import logging
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from app.loopback import is_loopback
from app.settings import Settings, SettingsError, settings_from

if TYPE_CHECKING:
    import torch


logger = logging.getLogger("flowgauge.serve")

# Accepted requests get so many seconds to finish, or the default deadline and a little more.
LEAST_GRACE_SECONDS: Final = 30
KEEP_ALIVE_SECONDS: Final = 75
BACKLOG: Final = 2048  # connections that wait to be accepted


def serve(
    models: Annotated[
        Path | None, typer.Option(help="Folder of the published models.", show_default="models")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="Folder of the inspections that are kept.", show_default="history")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.", show_default="8000")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads that compute.", show_default="torch's choice")
    ] = None,
    allow_unauthenticated_network: Annotated[
        bool | None,
        typer.Option(
            "--allow-unauthenticated-network",
            help="Listen beyond this machine, or trust a proxy, although there are no keys.",
            show_default="no",
        ),
    ] = None,
) -> None:
    """Serve the published models over HTTP until Ctrl-C or SIGTERM; a second one ends it at once.

    Exit codes: 0 after a clean stop; 1 when something is not there that may come, so that another start
    can help: the address, the history, the models folder, a CUDA device; 2 when what was
    asked for is wrong: an option, a certificate, a sink, the database's URL.

    Every option can be set by an environment variable instead: FLOWGAUGE_MODELS, FLOWGAUGE_PORT and so on.
    """
    # Here and not above: torch takes seconds, which --help should not.
    with _importing():
        import torch

        from flows.fastflow import models_folder
        from flows.fastflow.detector import DeviceError, pick_device
        from flows.fastflow.engines import pick_engine
        from flows.fastflow.engines.errors import EngineError

    given: dict[str, Any] = {
        "models": models,
        "history": history,
        "host": host,
        "port": port,
        "device": device,
        "threads": threads,
        "allow_unauthenticated_network": allow_unauthenticated_network,
    }
    try:
        settings = settings_from(**given)
        torch_device = pick_device(settings.device)
        pick_engine(settings.precision, torch_device, settings.engine)
        next(settings.models.iterdir(), None)
        categories = models_folder.categories(settings.models)
    except DeviceError as error:  # a driver may come after this start
        _stop(1, str(error))
    except (SettingsError, EngineError) as error:
        _stop(2, str(error))
    except OSError as error:  # a mount too
        _stop(
            1,
            f"the models folder {settings.models.absolute()} cannot be read: {error.strerror}. Name the one "
            "that you have with --models, or make an empty one for models that are uploaded.",
        )
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    _serve(settings, categories, torch_device)


def _serve(settings: Settings, categories: list[str], device: "torch.device") -> None:
    with _importing():
        import uvicorn

        from app import logs
        from app.certificate import CertificateError, require_certificate
        from app.database.engine import DatabaseError, DatabaseUnavailable, read_url
        from app.exposure import ExposureError, require_keys_on_network
        from app.history.history import HistoryError
        from app.main import create_app
        from app.server import Server
        from app.sinks.errors import SinkError
        from app.sinks.sinks import describe
        from flows.fastflow.engines import slower_here

    try:
        sinks = describe(settings)
        read_url(settings.database_url)
    except (SinkError, DatabaseError) as error:
        _stop(2, str(error))
    try:
        require_certificate(settings)
        keyed = require_keys_on_network(settings)
    except (CertificateError, ExposureError) as error:
        _stop(2, str(error))
    except DatabaseUnavailable as error:
        _stop(1, error.at_start)
    logs.configure(settings.log_format)
    listener = _listen(settings.host, settings.port)
    _greet(listener, settings, categories, device, sinks, keyed=keyed)
    _log(settings)
    if slower := slower_here(settings.precision, device):
        logger.warning("FLOWGAUGE_PRECISION: %s", slower)
    app = create_app(settings)
    gc.freeze()  # what was imported stays: no collection need walk through it while somebody waits
    proxies = settings.trusted_proxies.strip(" ,")
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # the service writes its own line per request, with the request's id
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        # Longer than the cycle of a line, and than proxies keep theirs: a request that is sent just when its
        # connection is closed is lost.
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(LEAST_GRACE_SECONDS, math.ceil(settings.deadline_ms / 1000) + 5),
    )

    def lost() -> str | None:
        batcher = getattr(app.state, "batcher", None)
        return None if batcher is None else batcher.lost

    server = Server(config, app.state.draining, settings.drain_seconds, lambda: lost() is not None)
    try:
        server.run_app(app, listener)
    except HistoryError as error:
        _stop(1, str(error))
    logger.info("stopped")
    if said := lost():
        _stop(1, said)  # so that a service manager starts it again


@contextmanager
def _importing() -> Iterator[None]:
    """Import without the garbage collector, which would take a seventh of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _variables() -> str:
    """A list of what can be set by variables alone."""
    options = inspect.signature(serve).parameters
    lines = ["By variables alone:", ""]
    for name, field in Settings.model_fields.items():
        if name not in options:
            default = "" if field.default in (None, "") else f" [default: {field.default}]"
            lines.append(f"- FLOWGAUGE_{name.upper()}: {field.description}{default}")
    lines.append('- FLOWGAUGE_MALLOC: "default" lets the C library give freed memory back: slower.')
    return "\n".join(lines)


serve.__doc__ = f"{serve.__doc__}\n    " + _variables().replace("\n", "\n    ")


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before the service is put together, so that a port in use is said at once."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # It listens: from here on connections wait instead of being refused.
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
        # asyncio does this for sockets of a protocol that it knows by number; these have number 0. Without it
        # the end of an answer waits 40 ms for the client to acknowledge its beginning.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        _stop(
            1,
            f"cannot listen on {host} port {port}: {error.strerror}. Is another server running "
            "there? Stop it, or choose another port with --port.",
        )
    return listener


def _greet(
    listener: socket.socket,
    settings: Settings,
    categories: list[str],
    device: "torch.device",
    sinks: list[str],
    *,
    keyed: bool,
) -> None:
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        host = f"[{host}]"
    scheme = "https" if settings.tls_key else "http"
    url = f"{scheme}://{host}:{port}"
    serves = f"FlowGauge serves {', '.join(categories) or 'no model yet'} from {settings.models} on {device}"
    if settings.log_format == "json":
        logger.info("%s at %s", serves, url)
        for sink in sinks:
            logger.info("inspections go to %s", sink)
        return
    typer.echo(serves)
    typer.echo(f"  in a browser   {url}/")
    typer.echo(f"  documentation  {url}/docs")
    if categories:
        predict = f"{url}/v1/models/{categories[0]}/predict"
        curl = 'curl -H "X-API-Key: $KEY"' if keyed else "curl"
        typer.echo(f"  decision       {curl} -F file=@part.png {predict}")
        typer.echo(f"  overlay        {curl} -F file=@part.png -H 'Accept: image/png' {predict} -o part.png")
    else:
        typer.echo(f"  a model        flowgauge train --data DIR --category NAME --models {settings.models}")
    for sink in sinks:
        typer.echo(f"  tells          {sink}")
    typer.echo("Ctrl-C stops it.")


def _log(settings: Settings) -> None:
    """Log what is in force, so that one knows in a year what was set and what was the default then."""
    from app.database.engine import read_url, shown

    logged = settings.model_dump(mode="json")
    if settings.database is not None:
        logged["database"] = shown(read_url(settings.database))
    logger.info("settings: %s", json.dumps(logged))
    for warning in warnings_of(settings):
        logger.warning(warning)


def warnings_of(settings: Settings) -> list[str]:
    """What these settings will cost one day, each with what to set instead."""
    found = []
    if settings.kept_for_ever:
        what, by = "the history", "FLOWGAUGE_RETENTION_BYTES, or "
        if settings.retention_bytes is not None:
            what, by = "the rows of the history, which stay when their pictures go", ""
        found.append(
            f"nothing limits {what}, as inspections of some decision are kept for ever: the disk will be "
            f"full, and then predictions are refused. Set {by}{', '.join(settings.kept_for_ever)}."
        )
    if settings.tls_key is None and not is_loopback(settings.host):
        found.append(
            "there is no TLS: keys and pictures can be read on the way. Set FLOWGAUGE_TLS_CERTIFICATE and "
            "FLOWGAUGE_TLS_KEY, or let a proxy with TLS on this machine be the only way to "
            f"{settings.host}."
        )
    return found


def _stop(code: int, message: str) -> NoReturn:
    typer.secho(f"flowgauge serve: {message}", fg="red", err=True)
    raise typer.Exit(code)
