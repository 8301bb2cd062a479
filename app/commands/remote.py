"""Options of commands that can ask a server."""

from pathlib import Path
from typing import Annotated

import typer

Key = Annotated[
    str | None,
    typer.Option(envvar="FLOWGAUGE_KEY", help="API key of the server; needs --url.", show_envvar=True),
]
Authority = Annotated[
    Path | None,
    typer.Option(help="PEM file of the authority that signed the server's certificate; needs --url."),
]
