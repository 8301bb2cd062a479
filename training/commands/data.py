"""`flowgauge data`: real photographs to try FlowGauge on, in the layout that `train` reads."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def data() -> None:
    """Lay out real photographs in the layout of MVTec AD, which `flowgauge train` reads.

    Your own pictures need no command: put good parts in DIR/CATEGORY/train/good and test parts in
    DIR/CATEGORY/test/good and DIR/CATEGORY/test/DEFECT.
    """


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
