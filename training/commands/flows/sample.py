"""`flowgauge flows sample`: draw images from a fitted flow."""

from pathlib import Path
from typing import Annotated

import typer

_MAX_SHEET = 2**25  # pixels; all images of a sheet are in memory at once


def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a fitted flow.")],
    out: Annotated[Path, typer.Option(help="A .png file for one sheet, or a folder for one file per image.")],
    number: Annotated[int, typer.Option("--number", "-n", help="Number of images.", min=1, max=10_000)] = 64,
    temperature: Annotated[
        float,
        typer.Option(
            help="Temperature of the latents; below 1, images are likelier and more alike.",
            min=0.0,
            max=100.0,
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0, max=2**63 - 1)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Draw images from a fitted flow.

    A folder holds the images of one draw. If files of an earlier draw would remain, nothing is drawn.

    Example: flowgauge flows sample runs-flows/glow-digits -n 64 --temperature 0.7 --out samples.png
    """
    import re

    import torch

    from flows.fastflow.engines.device import pick_device
    from flows.fastflow.files.atomic_files import replace_file, temporary_directory
    from training.density import saved_flow
    from training.density.sheets import SheetError, default_columns, png, sheet, sheet_size, to_pixels

    single = out.suffix.lower() == ".png"
    names = [out] if single else [out / f"{i:04d}.png" for i in range(number)]
    if not overwrite and (there := next((name for name in names if name.exists()), None)):
        raise saved_flow.SavedFlowError(
            f"{there} is there already; choose another --out, or replace it: --overwrite"
        )
    if out.exists() and out.is_dir() == single:
        kind = "a folder; a sheet" if single else "no folder; what does not end in .png"
        raise saved_flow.SavedFlowError(f"{out} is {kind} needs another --out")
    earlier = [] if single or not out.is_dir() else [path.name for path in out.iterdir()]
    drawn = [name for name in earlier if re.fullmatch(r"[0-9]{4}\.png", name)]
    if surplus := sorted(name for name in drawn if int(name[:4]) >= number):
        raise saved_flow.SavedFlowError(
            f"{out} holds {surplus[-1]} of another draw, which {number} images would not replace; choose "
            f"another --out, or remove it"
        )
    torch.set_num_threads(threads)
    where = pick_device(device)
    loaded = saved_flow.load(run, where)
    levels = loaded.record.levels
    _, height, width = loaded.record.event_shape
    wide, high = sheet_size(number, height, width, default_columns(number))
    if single and wide * high > _MAX_SHEET:
        raise SheetError(
            f"a sheet of {number} images would have {wide} x {high} pixels; draw fewer, or into a folder"
        )
    batches = saved_flow.draw(loaded.flow, number, temperature=temperature, seed=seed)
    if single:
        data = sheet(torch.cat(list(batches)), levels)
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, data, sync=False)
    else:
        # Written as they come, and named when all are there.
        with temporary_directory(out if out.is_dir() else out.parent) as temporary:
            rest = iter(names)
            for batch in batches:
                for pixels in to_pixels(batch, levels):
                    (temporary / next(rest).name).write_bytes(png(pixels))
            out.mkdir(exist_ok=True)
            for name in names:
                (temporary / name.name).replace(name)
    typer.echo(f"{number} images of {run}: {out}")
