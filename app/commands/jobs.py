"""`flowgauge jobs`: start, follow, list and cancel jobs of a server."""

import json
from typing import Annotated

import typer

from app.client import Client, Job, JobLines
from app.commands.options import SERVER_URL, AsJson, Authority, Key, ServerUrl
from app.schemas.jobs import JobKind
from flows.fastflow.progress import about

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
    version: Annotated[
        str | None, typer.Option(help="Version to evaluate, to calibrate, to compare or to learn with.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Version to compare with.")] = None,
    station: Annotated[str | None, typer.Option(help="Station to calibrate.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Learn only from inspections since, e.g. 2026-12-01.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow it to its end.")] = False,
    url: ServerUrl = SERVER_URL,
    key: Key = None,
    ca: Authority = None,
) -> None:
    """Queue a job and print its id."""
    settings = {"preset": preset, "epochs": epochs, "target_fpr": target_fpr, "seed": seed}
    settings |= {"version": version, "against": against, "station": station, "since": since}
    with Client(url, key, ca=ca) as client:
        job = client.start_job(kind, product, **settings)
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
    """Print the log, and below it the progress in a terminal."""
    from rich.console import Console
    from rich.text import Text

    last: Job | None = None
    console = Console()
    with console.status("", spinner="line") as status:
        for news in client.follow_job(job_id):
            if isinstance(news, JobLines):
                for line in news.lines:
                    console.out(line, highlight=False)
                continue
            status.update(Text(_describe(news)))
            last = news
    if last is not None:
        typer.echo(_describe(last))
    if last is None or last.state != "succeeded":
        raise typer.Exit(1)


def _describe(job: Job) -> str:
    if job.state != "running":
        return ", ".join(filter(None, [job.state, job.outcome, job.error]))
    if job.stage is None:
        return "starting"
    stage = "epoch" if job.stage == "fit" else job.stage
    steps = f" {job.done} of {job.total}" if job.total and job.total > 1 else ""
    left = "" if job.seconds_left is None else f", {about(job.seconds_left)} left"
    return f"{stage}{steps}{left}"
