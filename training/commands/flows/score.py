"""`flowgauge flows score`: rank images by their likelihood under a fitted flow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.commands.options import Device, RunFolder, Threads

_HEADER = ("rank", "picture", "log_likelihood_nats", "bits_per_dim", "typicality_nats")


RankBy = Literal["typicality", "likelihood"]
Data = Annotated[str, typer.Option(help="digits, whose test part is scored, or a folder with images.")]
Out = Annotated[Path | None, typer.Option(help="CSV file for all scores.")]
By = Annotated[
    RankBy, typer.Option(help="Rank by typicality, an unusual likelihood, or by a low likelihood.")
]
Top = Annotated[int, typer.Option(help="Lines to print; 0 for all.", min=0)]
Draws = Annotated[int, typer.Option(help="Noise draws to average over.", min=1)]
Seed = Annotated[int, typer.Option(help="Random seed of the noise.", min=0, max=2**63 - 1)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
ScoreRow = tuple[int, str, float, float, float]  # rank, name, nats, bits per dimension, typicality


def score(
    run: RunFolder,
    data: Data,
    out: Out = None,
    by: By = "typicality",
    top: Top = 20,
    draws: Draws = 4,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    threads: Threads = 2,
    device: Device = "auto",
) -> None:
    """Score images with a fitted flow, and rank them from the strangest to the most ordinary.

    Log-likelihoods are in nats and in bits per dimension. Typicality is the distance in nats from the mean
    log-likelihood of the run's held-out images (arXiv 1906.02994): a blank image may be the likeliest of all.

    Example: flowgauge flows score runs-flows/glow-digits --data digits --out scores.csv
    """
    import math

    import torch

    from flows.fastflow.engines.device import pick_device
    from training.commands.flows.images import load_score_images
    from training.density import saved_flow
    from training.density.outliers import negative_log_likelihood, typicality

    _require_new_file(out, overwrite=overwrite)
    torch.set_num_threads(threads)
    where = pick_device(device)
    loaded = saved_flow.load(run, where)
    record = loaded.record
    names, images, failures = load_score_images(data, record.event_shape, record.levels)
    dimensions = math.prod(record.event_shape) * math.log(2)
    surprise = negative_log_likelihood(loaded.flow, images.to(where), draws=draws, seed=seed).cpu()
    usual = torch.tensor([record.validation_bits_per_dim * dimensions], dtype=torch.float64)
    distance = typicality(surprise, usual)
    strangeness = distance if by == "typicality" else surprise
    rows = [
        (rank, _printable(names[i]), -surprise[i].item(), surprise[i].item() / dimensions, distance[i].item())
        for rank, i in enumerate(strangeness.argsort(descending=True, stable=True).tolist(), 1)
    ]
    if out is not None:  # before the rows are printed, perhaps into a pipe that closes
        _write_csv(out, rows)
    _print_rows(rows, top)
    if out is not None:
        typer.echo(f"scores of every image: {out}")
    for name, reason in failures.items():
        typer.secho(_printable(f"{name}: {reason}"), fg="red", err=True)
    if failures:
        typer.secho(f"{len(failures)} of {len(rows) + len(failures)} not scored", fg="red", err=True)
        raise typer.Exit(1)


def _require_new_file(out: Path | None, *, overwrite: bool) -> None:
    from training.density.saved_flow import SavedFlowError

    if out is not None and out.is_dir():
        raise SavedFlowError(f"{out} is a folder; --out is the name of a CSV file")
    if out is not None and not overwrite and out.exists():
        raise SavedFlowError(f"{out} is there already; choose another --out, or replace it: --overwrite")


def _print_rows(rows: Sequence[ScoreRow], top: int) -> None:
    typer.echo(f"{'rank':>5}  {'nats':>12}  {'bits/dim':>9}  {'typicality':>11}  picture")
    for rank, name, nats, bits, distance in rows[: top or None]:
        typer.echo(f"{rank:>5}  {nats:>12.2f}  {bits:>9.3f}  {distance:>11.2f}  {name}")
    if top and len(rows) > top:
        typer.echo(f"and {len(rows) - top} more; --top 0 prints all, --out FILE.csv keeps all")


def _write_csv(out: Path, rows: Sequence[ScoreRow]) -> None:
    import csv
    import io

    from flows.fastflow.files.atomic_files import replace_file

    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(_HEADER)
    writer.writerows([rank, _safe(name), *map(repr, figures)] for rank, name, *figures in rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, file.getvalue().encode(), sync=False)


def _printable(name: str) -> str:
    """Replace characters that control a terminal or break a line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def _safe(name: str) -> str:
    """Escape a name that a spreadsheet would take for a formula with an apostrophe."""
    import re

    # A cell with these first characters is a formula; a cell may also begin after a separator.
    name = f"'{name}" if name.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else name  # noqa: RUF001
    return re.sub(r"([;,|]\s*)(?=[=+\-@])", r"\1'", name)
