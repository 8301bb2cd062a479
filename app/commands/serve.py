"""`flowgauge serve`: the inspection service on this machine."""

import signal
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

# Requests get so many seconds to finish after SIGTERM or Ctrl-C.
GRACE_SECONDS = 30

LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": "INFO", "propagate": False}
        for name in ("flowgauge", "uvicorn")
    },
}


def serve(
    models: Annotated[
        Path | None, typer.Option(help="Folder of the published models.", show_default="models")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.", show_default="8000")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of torch.", show_default="torch's choice")
    ] = None,
    allow_unauthenticated_network: Annotated[
        bool | None,
        typer.Option(
            "--allow-unauthenticated-network",
            help="Listen beyond this machine although no request is authenticated.",
            show_default="no",
        ),
    ] = None,
) -> None:
    """Serve the published models over HTTP until Ctrl-C or SIGTERM.

    Every option can be set by an environment variable instead: FLOWGAUGE_MODELS, FLOWGAUGE_PORT and so on.
    By variables alone:

    - FLOWGAUGE_MAX_BYTES, FLOWGAUGE_MAX_PIXELS: the largest upload; 32 MiB and 50 million pixels
    - FLOWGAUGE_QUEUE_IMAGES, FLOWGAUGE_QUEUE_BYTES: what may wait and be in memory; 64 and 512 MiB
    - FLOWGAUGE_UPLOAD_IDLE_SECONDS: an upload that stalls for so long is given up; 30
    - FLOWGAUGE_DECODE_THREADS: images decoded or drawn at a time; 2
    - FLOWGAUGE_PRELOAD: load every active model at start; true
    - FLOWGAUGE_EXTRA_VERSIONS: versions kept loaded beside the active ones; 2
    - FLOWGAUGE_MALLOC: "default" lets the C library give freed memory back: less is held, but slower

    Exit codes: 0 after a clean stop; 1 when the address cannot be listened on; 2 when what was
    asked for is wrong: an option, a device, a folder without models.
    """
    # Here and not above: torch takes seconds, which --help should not.
    import torch
    import uvicorn
    from pydantic import ValidationError

    from app.main import create_app
    from app.settings import Settings
    from flows.fastflow import bundle
    from flows.fastflow.detector import DeviceError, pick_device

    given: dict[str, Any] = {
        "models": models,
        "host": host,
        "port": port,
        "device": device,
        "threads": threads,
        "allow_unauthenticated_network": allow_unauthenticated_network,
    }
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        torch_device = pick_device(settings.device)
        categories = bundle.categories(settings.models)
    except ValidationError as error:
        _stop(2, "\n".join(_say(item, given.keys()) for item in error.errors()))
    except DeviceError as error:
        _stop(2, str(error))
    except OSError as error:
        _stop(2, f"the models folder cannot be read: {error}")
    if not categories:
        _stop(
            2,
            f"there are no models in {settings.models.absolute()}. Train one:\n"
            f"  flowgauge train --data DIR --category NAME --models {settings.models}\n"
            "or name the folder that has some with --models.",
        )
    listener = _listen(settings.host, settings.port)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    _greet(listener, categories, settings.models, str(torch_device))
    # uvicorn finishes accepted work and then raises the signal again, for whoever handled it
    # before; a stop that was asked for is no failure, so that is nobody.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        create_app(settings),
        log_config=LOGGING,
        access_log=False,  # the service writes its own line per request, with the request's id
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is loaded, so that a port in use is said at once."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # It listens: from here on connections wait instead of being refused.
        return socket.create_server(address, family=family)
    except OSError as error:
        _stop(
            1,
            f"cannot listen on {host} port {port}: {error.strerror}. Is another server running "
            "there? Stop it, or choose another port with --port.",
        )


def _greet(listener: socket.socket, categories: list[str], models: Path, device: str) -> None:
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        host = f"[{host}]"
    predict = f"http://{host}:{port}/v1/models/{categories[0]}/predict"
    typer.echo(f"FlowGauge serves {', '.join(categories)} from {models} on {device}")
    typer.echo(f"  documentation  http://{host}:{port}/docs")
    typer.echo(f"  decision       curl -F file=@part.png {predict}")
    typer.echo(f"  overlay        curl -F file=@part.png -H 'Accept: image/png' {predict} -o part.png")
    typer.echo("Ctrl-C stops it.")


def _say(item: Any, options: Collection[str]) -> str:
    """One complaint of the settings, naming the option, if there is one, and the variable it is about."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = str(item["loc"][0])
    option = f"--{name.replace('_', '-')} or " if name in options else ""
    return f"{option}FLOWGAUGE_{name.upper()}: {message}; got {item['input']!r}"


def _stop(code: int, message: str) -> NoReturn:
    typer.secho(f"flowgauge serve: {message}", fg="red", err=True)
    raise typer.Exit(code)
