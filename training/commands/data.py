"""`flowgauge data`: check the images of a category, or get real ones to try."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.commands.options import ProgressFormat

if TYPE_CHECKING:
    from training.data.check.findings import DataCheck

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def data() -> None:
    """Check the images of a category before training, or get real ones to try FlowGauge.

    docs/how-to/prepare-data.md shows the layouts: plain folders, MVTec AD and its relatives, VisA.
    """


@app.command("check")
def check_images(
    data: Annotated[Path, typer.Option(help="Folder of the categories.")],
    category: Annotated[str, typer.Option(help="Name of the category's folder.")],
    json: Annotated[Path | None, typer.Option(help="Also write all findings to this file.")] = None,
    shown: Annotated[int, typer.Option(help="Most findings of each kind to print.", min=1)] = 10,
    threads: Annotated[int, typer.Option(help="Images decoded at a time.", min=1)] = 2,
    sample_bits: Annotated[
        int, typer.Option(help="Bits of a 16-bit sample that the camera uses, e.g. 12.", min=8, max=16)
    ] = 16,
    progress: ProgressFormat = "text",
) -> None:
    """Find images that are corrupt, copied, of another size, or unlike the other good ones.

    Test images and masks are checked too; nothing is changed. Exit code 1: a training image cannot be
    decoded, or no model can have the category's name.

    Example: flowgauge data check --data datasets/elpv --category solar_cell
    """
    from flows.fastflow.bundle.models_folder import require_category
    from flows.fastflow.progress import write_event
    from training.data.check.data_check import check_data
    from training.terminal.progress import open_progress

    reporter = open_progress(progress, {"data": 1})
    checked = check_data(data, category, threads=threads, sample_bits=sample_bits, stage=reporter.stage)
    reporter.say(f"{data / category}, laid out as {checked.layout}")
    if checked.no_test is not None:
        reporter.say(f"no test images: {checked.no_test}")
    for line in [*checked.lines(shown), *_limits_of_run(checked)]:
        reporter.say(line)
    if json is not None:
        json.write_text(checked.model_dump_json(indent=1), encoding="utf-8")
    require_category(category)  # training would refuse the name, perhaps after hours of others
    if progress == "json":
        write_event("result", **checked.model_dump(mode="json"))
    if checked.errors:
        raise typer.Exit(1)


def _limits_of_run(checked: "DataCheck") -> list[str]:
    """Describe the limits of a run on so few images or parts."""
    from training.config.run_config import CalibrationConfig
    from training.data.check.outliers import MIN_IMAGES
    from training.data.sample import DatasetError
    from training.data.split import describe_shortage, require_enough, split

    calibration = CalibrationConfig()
    lines = []
    if checked.train < MIN_IMAGES:
        lines.append(f"fewer than {MIN_IMAGES}: whether one of them is unlike the others was not looked for")
    try:
        require_enough(checked.different if checked.parts is None else checked.train)
        held_out = len(split(checked.different, calibration.fraction, seed=0).calibration)
    except DatasetError as error:
        return [*lines, f"training would refuse them: {error}"]
    return [*lines, *describe_shortage(held_out, calibration, parts=checked.parts is not None)]


@app.command("elpv")
def lay_out_elpv(
    out: Annotated[Path, typer.Option(help="Folder that receives the category solar_cell.")] = Path(
        "datasets/elpv"
    ),
) -> None:
    """Get solar cells from the package elpv-dataset (CC BY-NC-SA 4.0, no commercial use).

    1131 good cells are for training, 377 good and 715 defective ones for the test.
    """
    # Imported here: scikit-learn takes a second, and --help must not.
    from training.data import elpv

    already = (out / elpv.CATEGORY).exists()
    folder = elpv.lay_out(out)
    typer.echo(elpv.ATTRIBUTION)
    typer.echo(f"licence: {elpv.LICENCE}\n")
    for name in ("train/good", "test/good", "test/defective"):
        typer.echo(f"{len(list((folder / name).iterdir())):5d} images in {folder / name}")
    typer.echo("already there, unchanged" if already else "laid out")
    typer.echo(f"next: flowgauge train --data {out} --category {elpv.CATEGORY}")
