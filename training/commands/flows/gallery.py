"""`flowgauge flows gallery`: draw densities and flows."""

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Seed, Threads

Out = Annotated[Path, typer.Option(help="Folder for planar_radial.png and densities.png.")]
RecipeName = Annotated[
    str, typer.Option(help="Flow to fit: nice, realnvp, glow, spline, maf, planar or radial.")
]
Targets = Annotated[str, typer.Option(help="Densities to fit, separated by commas; or all, or none.")]
Steps = Annotated[int, typer.Option(help="Optimiser steps per fit.", min=1)]


def gallery(
    out: Out,
    recipe: RecipeName = "spline",
    targets: Targets = "all",
    steps: Steps = 2000,
    seed: Seed = 0,
    # Flows over two dimensions are too small for several threads, which would only wait for each other.
    threads: Threads = 1,
) -> None:
    """Draw planar and radial flows of growing depth, and densities that a flow learned.

    Needs matplotlib, the extra `plots`.

    Example: flowgauge flows gallery --out gallery --targets two_moons,pinwheel
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        typer.echo("error: drawing needs matplotlib: pip install matplotlib", err=True)
        raise typer.Exit(1)

    import torch

    from flows.fastflow.files.atomic_files import replace_file
    from training.density import gallery as drawings
    from training.density.fit import DensityFitError
    from training.density.plane import find_targets, fit_target, plane_recipe
    from training.terminal.progress import open_progress

    progress = open_progress("text", {})
    plane_recipe(recipe)
    chosen = find_targets(targets)
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "planar_radial.png", drawings.planar_and_radial(), sync=False)
    progress.say(f"drawn: {out / 'planar_radial.png'}")
    if not chosen:
        return
    results = []
    for target in chosen:
        try:
            with progress.stage(target.name, steps) as advance:
                results.append(fit_target(recipe, target, steps=steps, seed=seed, advance=advance))
        except DensityFitError as error:
            typer.echo(f"error: {target.name}: {error}", err=True)
        else:
            progress.say(f"{target.name}: KL {results[-1].divergence:.3f} nats")
    if results:
        title = f"{recipe}: densities learned from samples, {steps} steps each"
        replace_file(out / "densities.png", drawings.learned_densities(results, title), sync=False)
        progress.say(f"drawn: {out / 'densities.png'}")
    if len(results) < len(chosen):
        raise typer.Exit(1)
