"""What `flowgauge doctor` looked at, one line each."""

import json
from collections.abc import Iterable
from typing import Literal, NamedTuple

import typer
from rich.console import Console

_STYLES = {"ok": "green", "note": "yellow", "problem": "red"}


class Check(NamedTuple):
    """Something that was looked at.

    Attributes:
        name: what it was.
        state: ok; note, when it may be meant so; problem, when it keeps something from working.
        said: what was found; of a problem also what to do.
    """

    name: str
    state: Literal["ok", "note", "problem"]
    said: str


def show(checks: Iterable[Check], *, as_json: bool) -> None:
    """Print checks as they are made, or all of them as JSON.

    Raises:
        typer.Exit: with code 1 where one found a problem.
    """
    console = Console(highlight=False, soft_wrap=True)
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            line = f"{check.state:8}{check.name}: {check.said}"
            console.print(line, style=_STYLES[check.state], markup=False)
    if as_json:
        typer.echo(json.dumps([check._asdict() for check in found], indent=1))
    if any(check.state == "problem" for check in found):
        raise typer.Exit(1)
