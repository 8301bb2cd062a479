"""Checks of `flowgauge doctor`, printed one per line."""

import json
from collections.abc import Iterable
from typing import Literal, NamedTuple

import typer
from rich.console import Console

_STYLES = {"ok": "green", "note": "yellow", "problem": "red"}


class Check(NamedTuple):
    """Result of one check.

    Attributes:
        name: of the checked thing.
        state: ok; note if it may be intended; problem if something does not work.
        said: the finding, and for a problem also the remedy.
    """

    name: str
    state: Literal["ok", "note", "problem"]
    said: str


def print_checks(checks: Iterable[Check], *, as_json: bool) -> None:
    """Print each check as soon as it is made, or all of them as JSON.

    Raises:
        typer.Exit: code 1 if one of them is a problem.
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
