"""`flowgauge serve`: the inspection service on this machine."""

import gc
import inspect
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

import typer

from app.commands.options import History, ModelsOrDefault
from app.settings import Settings, SettingsError, load_settings


def serve(
    models: ModelsOrDefault = None,
    history: History = None,
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
            help="Listen beyond this machine, or trust a proxy, without keys: everybody may do everything.",
            show_default="no",
        ),
    ] = None,
) -> None:
    """Serve the published models over HTTP until Ctrl-C or SIGTERM. A second signal stops at once.

    Exit codes: 0 after a clean stop. 1 if something is missing that may appear later: the address, the
    history, the models folder, a CUDA device. 2 if a setting is wrong.

    Each option has an environment variable: FLOWGAUGE_MODELS, FLOWGAUGE_PORT and so on.
    """
    settings = _check_settings(locals())
    gc.disable()  # garbage collection would take a fifth of the import time
    from app import startup  # imported last: torch takes seconds, and wrong arguments are told at once

    gc.enable()
    startup.start(settings)


def _check_settings(options: Mapping[str, Any]) -> Settings:
    """Load the settings; end the process if they or the models folder cannot be used."""
    from flows.fastflow.bundle.models_folder import describe_category_folder

    try:
        settings = load_settings(**options)
        next(settings.models.iterdir(), None)
    except SettingsError as error:
        _stop(2, str(error))
    except OSError as error:  # may be temporary: the folder may be mounted later
        _stop(
            1,
            f"the models folder {settings.models.absolute()} cannot be read: {error.strerror}. Name your "
            "folder with --models, or create an empty one for models that you upload.",
        )
    if (fault := describe_category_folder(settings.models)) is not None:
        _stop(2, fault)
    return settings


def _stop(code: int, message: str) -> NoReturn:
    typer.secho(f"flowgauge serve: {message}", fg="red", err=True)
    raise typer.Exit(code)


def _variables() -> str:
    """List the settings that only environment variables set."""
    options = inspect.signature(serve).parameters
    lines = [
        f"- FLOWGAUGE_{name.upper()}: {field.description}"
        + ("" if field.default in (None, "") else f" [default: {field.default}]")
        for name, field in Settings.model_fields.items()
        if name not in options
    ]
    malloc = '- FLOWGAUGE_MALLOC: "default" returns freed memory to the system, which is slower.'
    return "\n".join(["Set by environment variables only:", "", *lines, malloc])


serve.__doc__ = f"{serve.__doc__}\n    " + _variables().replace("\n", "\n    ")
