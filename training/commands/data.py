"""`flowgauge data`: check the pictures of a category; lay out real ones to try FlowGauge on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.datasets.check.findings import DataCheck

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def data() -> None:
    """Check the pictures of a category before training; lay out real ones to try FlowGauge on.

    Your own pictures need no laying out: DIR/CATEGORY may be laid out as in MVTec AD, its relatives or VisA,
    or hold good parts in a folder good and others in folders named after their defects, or nothing but
    pictures of good parts.
    """


@app.command("check")
def check_pictures(
    data: Annotated[Path, typer.Option(help="The data folder, which holds DIR/CATEGORY.")],
    category: Annotated[str, typer.Option(help="The category: the name of its folder.")],
    json: Annotated[Path | None, typer.Option(help="Write all that was found to this file, too.")] = None,
    shown: Annotated[int, typer.Option(help="Findings of each kind to print.", min=1)] = 10,
    threads: Annotated[int, typer.Option(help="Pictures decoded at a time.", min=1)] = 2,
    sample_bits: Annotated[
        int, typer.Option(help="As sample_bits of the run's YAML: 12 for a camera of 12 bits.", min=8, max=16)
    ] = 16,
) -> None:
    """Look for files that are corrupt, copied, of another size, or unlike the other good ones.

    Reads the test pictures and masks, too, and changes nothing. `flowgauge train` makes the same check of the
    training pictures by itself. The exit code is 1 if a training picture cannot be decoded, or if no model
    can have the category's name.

    Example: flowgauge data check --data datasets/elpv --category solar_cell
    """
    from rich.console import Console

    from flows.fastflow.models_folder import check_category
    from training.datasets.check import check
    from training.progress import ConsoleProgress

    progress = ConsoleProgress(Console())
    found = check(data, category, threads=threads, sample_bits=sample_bits, stage=progress.stage)
    progress.say(f"{data / category}, laid out as {found.layout}")
    if found.no_test is not None:
        progress.say(f"no test pictures: {found.no_test}")
    for line in found.lines(shown):
        progress.say(line)
    for line in _for_a_run(found):
        progress.say(line)
    if json is not None:
        json.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    check_category(category)  # or training would refuse it, with a whole set at the end of a night
    if found.errors:
        raise typer.Exit(1)


def _for_a_run(found: "DataCheck") -> list[str]:
    """What so few pictures, or parts, cannot do."""
    from training.config import CalibrationConfig
    from training.datasets.check.outliers import FEWEST
    from training.datasets.sample import DatasetError
    from training.split import split, too_few

    asked = CalibrationConfig()
    lines = []
    if found.train < FEWEST:
        lines.append(f"fewer than {FEWEST}: whether one of them is unlike the others was not looked for")
    try:
        held_out = len(split(found.different, asked.fraction, seed=0).calibration)
    except DatasetError as error:
        return [*lines, f"training would refuse them: {error}"]
    return [*lines, *too_few(held_out, asked, parts=found.parts is not None)]


@app.command("elpv")
def lay_out_elpv(
    out: Annotated[Path, typer.Option(help="The data folder; the category solar_cell appears in it.")] = Path(
        "datasets/elpv"
    ),
) -> None:
    """Solar cells from the package elpv-dataset (CC BY-NC-SA 4.0: not for commercial use).

    1131 good cells to train on; 377 good and 715 defective cells to test on.
    """
    # Imported here: scikit-learn takes a second, and --help must not.
    from training.datasets import elpv

    already = (out / elpv.CATEGORY).exists()
    folder = elpv.lay_out(out)
    typer.echo(elpv.ATTRIBUTION)
    typer.echo(f"licence: {elpv.LICENCE}\n")
    for name in ("train/good", "test/good", "test/defective"):
        typer.echo(f"{len(list((folder / name).iterdir())):5d} pictures in {folder / name}")
    typer.echo("already there, unchanged" if already else "laid out")
    typer.echo(f"next: flowgauge train --data {out} --category {elpv.CATEGORY}")
