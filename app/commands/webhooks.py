"""`flowgauge webhooks`: list webhooks and failed deliveries."""

import json

import typer

from app.commands.options import AsJson
from app.commands.server_database import open_database
from app.database import clock
from app.events.sinks import positions
from app.events.sinks.config import SinkError
from app.events.sinks.webhook_file import read_webhooks
from app.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def webhooks() -> None:
    """List webhooks and their failed deliveries.

    Set FLOWGAUGE_HISTORY, FLOWGAUGE_DATABASE and FLOWGAUGE_WEBHOOKS as for the server.
    """


@app.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List the webhooks without their secrets, and the deliveries that were given up."""
    settings = load_settings()
    if settings.webhooks is None:
        raise SinkError("FLOWGAUGE_WEBHOOKS is not set: set it as for the server")
    rows = []
    with open_database(settings) as database, database.read() as connection:
        for webhook in read_webhooks(settings.webhooks):
            failed = [
                {
                    "inspection_id": json.loads(data)["inspection_id"],
                    "failed_at": clock.iso(ms),
                    "reason": reason,
                }
                for ms, reason, data in positions.given_up(connection, f"webhook-{webhook.name}")
            ]
            rows.append({"name": webhook.name, "host": webhook.host, "failed": failed})
            if not as_json:
                typer.echo(f"{webhook.name:<32}  {webhook.host}  failed deliveries: {len(failed)}")
                for row in failed:
                    typer.echo(f"  {row['failed_at']}  {row['inspection_id']}  {row['reason']}")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
