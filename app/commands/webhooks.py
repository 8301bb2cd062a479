"""`flowgauge webhooks`: who is told of inspections, and once more of what was given up."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from app.commands.auditing import audited
from app.settings import Settings, settings_from
from app.sinks.errors import SinkError
from app.sinks.redelivery import redeliver
from app.sinks.sinks import dead_letters_of
from app.sinks.webhook import WebhookSink
from app.sinks.webhook_file import WebhookFile, read_webhooks

File = Annotated[
    Path | None,
    typer.Option("--webhooks", help="YAML file of the webhooks.", show_default="FLOWGAUGE_WEBHOOKS"),
]
History = Annotated[
    Path | None,
    typer.Option(help="The server's history folder, where dead letters are.", show_default="history"),
]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def webhooks() -> None:
    """Who is told of inspections, and what they did not take.

    Works on the server's files, whether the server runs or not: FLOWGAUGE_HISTORY and FLOWGAUGE_WEBHOOKS
    must be set as for the server, and the user be the one whom it runs as.
    """


@app.command("list")
def list_webhooks(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    webhooks: File = None,
    history: History = None,
) -> None:
    """List the webhooks, and how many events each was given up on; never their secrets."""
    settings, file = _read(webhooks, history)
    rows = [
        {
            "name": one.name,
            "host": one.host,
            "dead_letters": len(dead_letters_of(settings, f"webhook-{one.name}")),
        }
        for one in file.webhooks
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['name']:<32}  {row['host']}  dead letters: {row['dead_letters']}")


@app.command("redeliver")
def redeliver_dead_letters(
    name: Annotated[str, typer.Argument(help="The webhook's name, from `flowgauge webhooks list`.")],
    webhooks: File = None,
    history: History = None,
) -> None:
    """Send once more what was given up, the oldest first; what is not taken now is kept.

    Each event says `"redelivered": true`, as it may have arrived before, and comes after newer ones.
    """
    settings, file = _read(webhooks, history)
    webhook = next((one for one in file.webhooks if one.name == name), None)
    if webhook is None:
        names = ", ".join(one.name for one in file.webhooks) or "none"
        raise SinkError(f"there is no webhook {name!r}, but: {names}")
    sink = WebhookSink(webhook, file.networks)
    dead = dead_letters_of(settings, sink.name)
    if not len(dead):
        typer.echo(f"There are no dead letters of {name} in {dead.path.parent}.")
        return

    def tell(refusal: str) -> None:
        typer.echo(f"an event is kept: {refusal}", err=True)

    with audited("webhook.redeliver", name, settings=settings) as detail:
        done = asyncio.run(redeliver(sink, dead, tell))
        detail.update(delivered=done.delivered, kept=done.kept)
    typer.echo(f"{done.delivered} delivered, {done.kept} kept in {dead.path.parent}")
    if done.unreadable:
        typer.echo(f"{done.unreadable} of those kept cannot be read: they are no letters", err=True)
    if done.stopped is not None:
        typer.echo(f"error: {done.waiting} were not sent: {done.stopped}", err=True)
    if done.kept:
        raise typer.Exit(1)


def _read(webhooks: Path | None, history: Path | None) -> tuple[Settings, WebhookFile]:
    """The settings, and the webhooks that they name.

    Raises:
        SinkError: they name none, or something is wrong with it.
    """
    settings = settings_from(webhooks=webhooks, history=history)
    if settings.webhooks is None:
        raise SinkError("there are no webhooks: set FLOWGAUGE_WEBHOOKS as for the server, or say --webhooks")
    return settings, read_webhooks(settings.webhooks)
