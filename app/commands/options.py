"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from app.schemas.texts import text_fault

MODELS_FOLDER: Final = Path("models")

Models = Annotated[Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Models folder.")]
ModelsOrDefault = Annotated[Path | None, typer.Option(help="Models folder.", show_default="models")]
History = Annotated[Path | None, typer.Option(help="History folder.", show_default="history")]
CategoryOption = Annotated[str, typer.Option(help="Category, e.g. bottle.")]
VersionOption = Annotated[str | None, typer.Option(help="Version; by default the active one.")]
Device = Annotated[str, typer.Option(envvar="FLOWGAUGE_DEVICE", help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", min=1, show_default="torch's choice")]
ServerUrl = Annotated[str, typer.Option("--url", envvar="FLOWGAUGE_URL", help="Address of the server.")]
SERVER_URL: Final = "http://127.0.0.1:8000"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ProgressFormat = Annotated[Literal["text", "json"], typer.Option(help="json: an event a line, for programs.")]
Key = Annotated[
    str | None,
    typer.Option(envvar="FLOWGAUGE_KEY", help="API key of the server; needs --url.", show_envvar=True),
]
Authority = Annotated[
    Path | None,
    typer.Option(help="PEM file of the authority that signed the server's certificate; needs --url."),
]


def require_text(text: str | None, option: str) -> None:
    """Require that an option's text may be sent and stored.

    Raises:
        typer.BadParameter: it is too long or has control characters.
    """
    if text is not None and (fault := text_fault(text)):
        raise typer.BadParameter(f"{text!r} {fault}", param_hint=option)
