"""`flowgauge cluster`: the service as replicas on a Ray cluster."""

import threading
from typing import Annotated

import typer

from app.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def _cluster() -> None:
    """Run the service as replicas on a Ray cluster."""


@app.command()
def serve(
    address: Annotated[str, typer.Option(help="Ray cluster: auto, HOST:PORT or local.")] = "auto",
    replicas: Annotated[str, typer.Option(help="Least and most replicas, MIN:MAX.")] = "1:4",
    host: Annotated[
        str | None, typer.Option(help="Address of the proxies.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the proxies.", show_default="8000")] = None,
) -> None:
    """Serve the published models by replicas of a Ray cluster until Ctrl-C.

    Needs keys, and FLOWGAUGE_DATABASE and FLOWGAUGE_STORE, which the replicas share. FLOWGAUGE_HISTORY is a
    folder on the disk of each node, for what the replicas do not share. The settings of `flowgauge serve`
    apply.
    """
    from app.cluster.deployment import Replicas, deployed
    from app.cluster.requirements import require_shareable

    settings = load_settings(host=host, port=port)
    wanted = Replicas.parse(replicas)
    require_shareable(settings)
    with deployed(address, settings, wanted):
        scheme = "https" if settings.tls_key else "http"
        typer.echo(f"FlowGauge serves at {scheme}://{settings.host}:{settings.port}. Ctrl-C stops it.")
        threading.Event().wait()
