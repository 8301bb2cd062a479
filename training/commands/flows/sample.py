"""`flowgauge flows sample`: draw pictures from a fitted flow."""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a fitted flow.")],
    out: Annotated[
        Path, typer.Option(help="A sheet, if it ends in .png; else a folder for a file of each picture.")
    ],
    number: Annotated[int, typer.Option("--number", "-n", help="How many pictures.", min=1, max=10_000)] = 64,
    temperature: Annotated[
        float, typer.Option(help="Of the latents; below 1 likelier and more alike.", min=0.0, max=100.0)
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0, max=2**63 - 1)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Draw pictures from a fitted flow.

    Example: flowgauge flows sample runs-flows/glow-digits -n 64 --temperature 0.7 --out samples.png
    """
    import torch

    from flows.fastflow.detector import pick_device
    from flows.fastflow.plain_files import replace_file
    from training.density import saved
    from training.density.sheets import png, sheet, to_pixels

    single = out.suffix.lower() == ".png"
    names = [out] if single else [out / f"{i:04d}.png" for i in range(number)]
    if not overwrite and (there := next((name for name in names if name.exists()), None)):
        raise saved.SavedFlowError(
            f"{there} is there already; choose another --out, or replace it: --overwrite"
        )
    torch.set_num_threads(threads)
    where = pick_device(device)
    loaded = saved.load(run, where)
    pictures = saved.draw(loaded.flow, number, temperature=temperature, seed=seed)
    levels = loaded.record.levels
    files = [sheet(pictures, levels)] if single else [png(pixels) for pixels in to_pixels(pictures, levels)]
    names[0].parent.mkdir(parents=True, exist_ok=True)
    for name, data in zip(names, files, strict=True):
        replace_file(name, data)
    typer.echo(f"{number} pictures of {run}: {out}")
