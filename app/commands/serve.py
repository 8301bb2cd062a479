"""`flowgauge serve`: the inspection service on this machine."""

import gc
import inspect
from pathlib import Path
from typing import Annotated

import typer

from app.settings import Settings


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
    options = locals()
    gc.disable()  # it would take a fifth of the time of this import
    from app import startup  # here and not above: torch takes seconds, which --help should not

    gc.enable()
    startup.start(**options)


def _variables() -> str:
    """A list of what can be set by variables alone."""
    options = inspect.signature(serve).parameters
    lines = [
        f"- FLOWGAUGE_{name.upper()}: {field.description}"
        + ("" if field.default in (None, "") else f" [default: {field.default}]")
        for name, field in Settings.model_fields.items()
        if name not in options
    ]
    malloc = '- FLOWGAUGE_MALLOC: "default" lets the C library give freed memory back: slower.'
    return "\n".join(["By variables alone:", "", *lines, malloc])


serve.__doc__ = f"{serve.__doc__}\n    " + _variables().replace("\n", "\n    ")
