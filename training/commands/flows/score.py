"""`flowgauge flows score`: rank images by their likelihood under a fitted flow."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_HEADER = ("rank", "picture", "log_likelihood_nats", "bits_per_dim", "typicality_nats")


class RankBy(StrEnum):
    """What to rank by."""

    TYPICALITY = "typicality"
    LIKELIHOOD = "likelihood"


def score(
    run: Annotated[Path, typer.Argument(help="Folder of a fitted flow.")],
    data: Annotated[str, typer.Option(help="digits, whose test part is scored, or a folder with images.")],
    out: Annotated[Path | None, typer.Option(help="CSV file for all scores.")] = None,
    by: Annotated[
        RankBy, typer.Option(help="Rank by typicality, an unusual likelihood, or by a low likelihood.")
    ] = RankBy.TYPICALITY,
    top: Annotated[int, typer.Option(help="Lines to print; 0 for all.", min=0)] = 20,
    draws: Annotated[int, typer.Option(help="Noise draws to average over.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Random seed of the noise.", min=0, max=2**63 - 1)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Score images with a fitted flow, and rank them from the strangest to the most ordinary.

    Log-likelihoods are in nats and in bits per dimension. A blank image may have the highest likelihood of
    all (Nalisnick et al. 2019, arXiv 1810.09136). Typicality is therefore the distance in nats from the mean
    log-likelihood of the run's held-out images (arXiv 1906.02994).

    Exit code 1: an image cannot be read; the others are scored.

    Example: flowgauge flows score runs-flows/glow-digits --data digits --out scores.csv
    """
    import csv
    import io
    import math

    import torch

    from flows.fastflow.engines.device import pick_device
    from flows.fastflow.files.atomic_files import replace_file
    from training.commands.flows.data import to_score
    from training.density import saved_flow
    from training.density.outliers import negative_log_likelihood, typicality

    if out is not None and out.is_dir():
        raise saved_flow.SavedFlowError(f"{out} is a folder; --out is the name of a CSV file")
    if out is not None and not overwrite and out.exists():
        raise saved_flow.SavedFlowError(
            f"{out} is there already; choose another --out, or replace it: --overwrite"
        )
    torch.set_num_threads(threads)
    where = pick_device(device)
    loaded = saved_flow.load(run, where)
    record = loaded.record
    names, images, failures = to_score(data, record.event_shape, record.levels)
    dimensions = math.prod(loaded.record.event_shape) * math.log(2)
    surprise = negative_log_likelihood(loaded.flow, images.to(where), draws=draws, seed=seed).cpu()
    usual = torch.tensor([loaded.record.validation_bits_per_dim * dimensions], dtype=torch.float64)
    distance = typicality(surprise, usual)
    strangest = (
        (distance if by is RankBy.TYPICALITY else surprise).argsort(descending=True, stable=True).tolist()
    )
    rows = [
        (rank, _printable(names[i]), -surprise[i].item(), surprise[i].item() / dimensions, distance[i].item())
        for rank, i in enumerate(strangest, 1)
    ]
    typer.echo(f"{'rank':>5}  {'nats':>12}  {'bits/dim':>9}  {'typicality':>11}  picture")
    for rank, name, nats, bits, far in rows[: top or None]:
        typer.echo(f"{rank:>5}  {nats:>12.2f}  {bits:>9.3f}  {far:>11.2f}  {name}")
    if top and len(rows) > top:
        typer.echo(f"and {len(rows) - top} more; --top 0 prints all, --out FILE.csv keeps all")
    if out is not None:
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(_HEADER)
        writer.writerows([rank, _safe(name), *map(repr, figures)] for rank, name, *figures in rows)
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, file.getvalue().encode(), sync=False)
        typer.echo(f"scores of every image: {out}")
    for name, reason in failures.items():
        typer.secho(_printable(f"{name}: {reason}"), fg="red", err=True)
    if failures:
        typer.secho(f"{len(failures)} of {len(rows) + len(failures)} not scored", fg="red", err=True)
        raise typer.Exit(1)


def _printable(name: str) -> str:
    """A file's name without what would steer a terminal or break a line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def _safe(name: str) -> str:
    """A name that no spreadsheet takes for a formula: with an apostrophe before it where one would."""
    import re

    # A cell that begins so is a formula; where a semicolon separates cells, one begins after it too.
    name = f"'{name}" if name.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else name  # noqa: RUF001
    return re.sub(r"([;,|]\s*)(?=[=+\-@])", r"\1'", name)
