"""`flowgauge jobs`: start, follow, list and cancel jobs of a server."""

import json
from typing import Annotated, Any

import typer

from app.client import Client, Job
from app.commands.options import SERVER_URL, AsJson, Authority, Key, ServerUrl
from app.schemas.jobs import JobKind

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

JobId = Annotated[str, typer.Argument(help="Id of the job.")]
Product = Annotated[str, typer.Option(help="Product, e.g. bottle.")]


@app.callback()
def jobs() -> None:
    """Start, follow, list and cancel jobs of a server, such as trainings."""


@app.command("start")
def start(
    kind: Annotated[JobKind, typer.Argument(help="Kind of job.")],
    product: Product,
    preset: Annotated[str | None, typer.Option(help="Preset of a training.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images of a training.")] = None,
    target_fpr: Annotated[
        float | None, typer.Option(help="Share of good parts that a starter or a training may reject.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of a starter or a training.")] = None,
    version: Annotated[str | None, typer.Option(help="Version to evaluate or calibrate.")] = None,
    station: Annotated[str | None, typer.Option(help="Station to calibrate.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow it to its end.")] = False,
    url: ServerUrl = SERVER_URL,
    key: Key = None,
    ca: Authority = None,
) -> None:
    """Queue a job and print its id."""
    settings = {"preset": preset, "epochs": epochs, "target_fpr": target_fpr, "seed": seed}
    with Client(url, key, ca=ca) as client:
        job = client.start_job(kind, product, **settings, version=version, station=station)
        typer.echo(job.id)
        if follow:
            _follow(client, job.id)


@app.command("follow")
def follow(job_id: JobId, url: ServerUrl = SERVER_URL, key: Key = None, ca: Authority = None) -> None:
    """Print a job's log until the job ends; exit with 1 unless it succeeds."""
    with Client(url, key, ca=ca) as client:
        _follow(client, job_id)


@app.command("show")
def show(
    job_id: JobId, as_json: AsJson = False, url: ServerUrl = SERVER_URL, key: Key = None, ca: Authority = None
) -> None:
    """Print a job with the last lines of its log."""
    with Client(url, key, ca=ca) as client:
        job = client.job(job_id)
    if as_json:
        typer.echo(job.model_dump_json(indent=1))
        return
    for line in job.lines:
        typer.echo(line)
    typer.echo(_describe(job))


@app.command("list")
def list_jobs(
    product: Annotated[str | None, typer.Option(help="Only of this product.")] = None,
    as_json: AsJson = False,
    url: ServerUrl = SERVER_URL,
    key: Key = None,
    ca: Authority = None,
) -> None:
    """List the latest jobs, the newest first."""
    with Client(url, key, ca=ca) as client:
        found = client.jobs(product)
    if as_json:
        typer.echo(json.dumps([job.model_dump(mode="json") for job in found], indent=1))
        return
    for job in found:
        typer.echo(f"{job.id}  {job.created}  {job.kind:<9}  {job.product}  {_describe(job)}")


@app.command("cancel")
def cancel(job_id: JobId, url: ServerUrl = SERVER_URL, key: Key = None, ca: Authority = None) -> None:
    """Cancel a job that waits or runs."""
    with Client(url, key, ca=ca) as client:
        typer.echo(_describe(client.cancel_job(job_id)))


def _follow(client: Client, job_id: str) -> None:
    last: Job | None = None
    for news in client.follow_job(job_id):
        if isinstance(news, Job):
            last = news
            continue
        for line in news.lines:
            typer.echo(line)
    if last is not None:
        typer.echo(_describe(last))
    if last is None or last.state != "succeeded":
        raise typer.Exit(1)


def _describe(job: Job) -> str:
    parts: list[Any] = [job.state]
    if job.state == "running":
        parts.append(f"{job.share:.0%}")
        if job.seconds_left is not None:
            parts.append(f"{job.seconds_left:.0f} s left")
    parts += filter(None, [job.outcome, job.error])
    return ", ".join(parts)
