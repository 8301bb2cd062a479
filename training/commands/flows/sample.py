"""`flowgauge flows sample`: draw images from a fitted flow."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.commands.options import Device, RunFolder, Seed, Threads

if TYPE_CHECKING:
    from torch import Tensor

_MAX_SHEET = 2**25  # pixels; all images of a sheet are in memory at once

Out = Annotated[Path, typer.Option(help="A .png file for one sheet, or a folder for one file per image.")]
Number = Annotated[int, typer.Option("--number", "-n", help="Number of images.", min=1, max=10_000)]
Temperature = Annotated[
    float,
    typer.Option(
        help="Temperature of the latents; below 1, images are likelier and more alike.", min=0.0, max=100.0
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]


def sample(
    run: RunFolder,
    out: Out,
    number: Number = 64,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    threads: Threads = 2,
    device: Device = "auto",
) -> None:
    """Draw images from a fitted flow.

    If files of an earlier draw would remain, nothing is drawn.

    Example: flowgauge flows sample runs-flows/glow-digits -n 64 --temperature 0.7 --out samples.png
    """
    import torch

    from flows.fastflow.engines.device import pick_device
    from flows.fastflow.files.atomic_files import replace_file
    from training.density import saved_flow
    from training.density.sheets import SheetError, default_columns, sheet, sheet_size

    single = out.suffix.lower() == ".png"
    names = [out] if single else [out / f"{i:04d}.png" for i in range(number)]
    _require_free(out, names, overwrite=overwrite, single=single)
    torch.set_num_threads(threads)
    loaded = saved_flow.load(run, pick_device(device))
    _, height, width = loaded.record.event_shape
    wide, high = sheet_size(number, height, width, default_columns(number))
    if single and wide * high > _MAX_SHEET:
        raise SheetError(
            f"a sheet of {number} images would have {wide} x {high} pixels; draw fewer, or into a folder"
        )
    batches = saved_flow.draw(loaded.flow, number, temperature=temperature, seed=seed)
    if single:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, sheet(torch.cat(list(batches)), loaded.record.levels), sync=False)
    else:
        _write_files(out, names, batches, loaded.record.levels)
    typer.echo(f"{number} images of {run}: {out}")


def _require_free(out: Path, names: list[Path], *, overwrite: bool, single: bool) -> None:
    """Require that the files replace nothing unasked, and leave no files of an earlier draw."""
    from training.density.saved_flow import SavedFlowError

    if not overwrite and (existing := next((name for name in names if name.exists()), None)):
        raise SavedFlowError(f"{existing} is there already; choose another --out, or replace it: --overwrite")
    if out.exists() and out.is_dir() == single:
        kind = "a folder; a sheet" if single else "no folder; what does not end in .png"
        raise SavedFlowError(f"{out} is {kind} needs another --out")
    earlier = [] if single or not out.is_dir() else [path.name for path in out.iterdir()]
    drawn = [name for name in earlier if re.fullmatch(r"[0-9]{4}\.png", name)]
    if surplus := sorted(name for name in drawn if int(name[:4]) >= len(names)):
        raise SavedFlowError(
            f"{out} holds {surplus[-1]} of another draw, which {len(names)} images would not replace; choose "
            f"another --out, or remove it"
        )


def _write_files(out: Path, names: list[Path], batches: "Iterable[Tensor]", levels: int) -> None:
    """Write the images batch by batch, and give them their names when all are written."""
    from flows.fastflow.files.atomic_files import temporary_directory
    from training.density.sheets import png, to_pixels

    with temporary_directory(out if out.is_dir() else out.parent) as temporary:
        rest = iter(names)
        for batch in batches:
            for pixels in to_pixels(batch, levels):
                (temporary / next(rest).name).write_bytes(png(pixels))
        out.mkdir(exist_ok=True)
        for name in names:
            (temporary / name.name).replace(name)
