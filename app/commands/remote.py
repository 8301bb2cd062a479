"""Options of commands that ask a server, instead of looking into folders of this machine."""

from pathlib import Path
from typing import Annotated

import typer

Key = Annotated[
    str | None,
    typer.Option(envvar="FLOWGAUGE_KEY", help="With --url: a key of that server.", show_envvar=True),
]
Authority = Annotated[
    Path | None, typer.Option(help="With --url: PEM file of the authority that signed its certificate.")
]
