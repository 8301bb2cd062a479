"""`flowgauge flows train`: fit a flow to images."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from flows import Flow
    from training.density.fit import FitSettings
    from training.terminal.progress import Progress


def train(
    recipe: Annotated[str, typer.Argument(help="nice, realnvp, glow, spline or maf.")],
    data: Annotated[
        str,
        typer.Option(help="digits (of scikit-learn), or a folder with images, such as ./digits."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; by default runs-flows/RECIPE-DATA.", show_default=False),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Side of a folder's images in pixels; by default 32.", min=1, max=1024),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="1 for grey, 3 for colour; by default 3.", min=1, max=3)
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=1)] = 2000,
    batch_size: Annotated[int, typer.Option(help="Images per step.", min=2)] = 128,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.", min=1e-8, max=1.0)] = 2e-3,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0, max=2**63 - 1)] = 0,
    hidden: Annotated[
        int | None,
        typer.Option(help="Width of the hidden layers; by default the recipe's.", min=1, max=65536),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Couplings of NICE, steps per scale of Glow and spline, layers of MAF, blocks of RealNVP.",
            min=1,
            max=65536,
        ),
    ] = None,
    scales: Annotated[
        int | None,
        typer.Option(help="Resolutions of RealNVP, Glow and spline; by default 2.", min=1, max=16),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Fit a flow to images by maximum likelihood, and save it with samples.

    The likelihood is printed in bits per dimension, less is better. It is a bound for pixels with uniform
    noise (Theis et al. 2016, arXiv 1511.01844). The weights that do best on held-out images are kept.

    The run's folder holds flow.safetensors, recipe.json, metrics.jsonl, samples.png and interpolations.png.
    If the likelihood is no longer finite, the fit ends early with the best weights so far.

    Example: flowgauge flows train glow --data digits
    """
    # Imported here: torch takes seconds, and --help must not.
    import torch
    from rich.console import Console

    from flows.fastflow.engines.device import pick_device
    from training.commands.flows.data import to_fit
    from training.density import named_recipes, saved_flow
    from training.density.fit import FitSettings
    from training.terminal.progress import ConsoleProgress

    progress = ConsoleProgress(Console())
    recipe = named_recipes.recipe_name(recipe)
    chosen = named_recipes.arguments(recipe, hidden=hidden, depth=depth, scales=scales)
    target = out or Path("runs-flows") / f"{recipe}-{Path(data).resolve().name}"
    saved_flow.check_target(target, overwrite=overwrite)
    where = pick_device(device)
    images = to_fit(data, size=size, channels=channels, halvings=named_recipes.halvings(recipe, chosen))
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    flow = named_recipes.build(recipe, images.shape, images.levels, chosen).to(where)
    train, validation = (part.to(where) for part in (images.train, images.validation))
    progress.say(
        f"{recipe}, {sum(p.numel() for p in flow.parameters()):,} parameters, on {where}; "
        f"{len(train)} images of {images.shape} and {images.levels} levels to fit, "
        f"{len(validation)} held out"
    )
    settings = FitSettings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        every=max(1, min(100, steps // 10)),
        seed=seed,
    )
    with saved_flow.new_run(target, overwrite=overwrite) as run:
        bits, seconds = _fit(flow, train, validation, settings, run / saved_flow.METRICS, progress)
        record = saved_flow.FlowRecord(
            recipe=recipe,
            arguments=chosen,
            event_shape=images.shape,
            levels=images.levels,
            data=saved_flow.DataSource.of(images, data),
            settings=saved_flow.FitRecord(
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                seed=seed,
                device=str(where),
                seconds=round(seconds, 3),
            ),
            validation_bits_per_dim=bits,
        )
        saved_flow.save(run, flow, record)
    progress.say(f"{bits:.3f} bits/dim of held-out images, after {seconds:.0f} s")
    progress.say(f"kept: {target}")
    _draw(flow, validation, images.levels, target, seed, progress)
    following = ["flowgauge", "flows", "sample", str(target), "--temperature", "0.7", "--out", "samples.png"]
    progress.say(f"next: {shlex.join(following)}")


def _fit(
    flow: "Flow",
    train: "Tensor",
    validation: "Tensor",
    settings: "FitSettings",
    metrics_file: Path,
    progress: "Progress",
) -> tuple[float, float]:
    """Fit the flow, a line for every look at it; its bits per dimension of held-out images, and seconds."""
    import json
    import math
    import time

    from training.density.fit import FitPoint, fit
    from training.density.outliers import negative_log_likelihood

    per_bit = math.prod(train.shape[1:]) * math.log(2)
    start = time.monotonic()
    steps = settings.steps
    # A line is there when it is written.
    with metrics_file.open("w", buffering=1) as metrics, progress.stage("fit", steps) as advance:
        shown = 0

        def on_point(point: FitPoint) -> None:
            nonlocal shown
            row = {"train": point.train / per_bit, "validation": point.validation / per_bit}
            progress.say(
                f"step {point.step:>{len(str(steps))}}/{steps}  bits/dim: train {row['train']:.3f}, "
                f"validation {row['validation']:.3f}  ({time.monotonic() - start:.0f} s)"
            )
            metrics.write(json.dumps({"step": point.step, "bits_per_dim": row}) + "\n")
            advance(point.step - shown)
            shown = point.step

        points = fit(flow, train, validation, settings, on_point=on_point)
    seconds = time.monotonic() - start
    if points[-1].step < steps:
        progress.say(
            f"the fit ended after step {points[-1].step}: the likelihood was no longer finite; the best "
            f"weights until then are kept, and a lower --learning-rate helps"
        )
    bits = negative_log_likelihood(flow, validation, seed=settings.seed).mean().item() / per_bit
    if not math.isfinite(bits):  # by other noise than at the looks; the best of those was finite
        bits = min(point.validation for point in points if math.isfinite(point.validation)) / per_bit
    return bits, seconds


def _draw(
    flow: "Flow", validation: "Tensor", levels: int, folder: Path, seed: int, progress: "Progress"
) -> None:
    """Write sheets of samples and interpolations, where they can be drawn."""
    import torch

    from flows.fastflow.files.atomic_files import replace_file
    from training.density import saved_flow
    from training.density.interpolate import interpolate
    from training.density.sheets import SheetError, sheet

    def draw(name: str, drawn: torch.Tensor, columns: int) -> None:
        try:
            replace_file(folder / name, sheet(drawn, levels, columns=columns), sync=False)
        except SheetError as error:
            progress.say(f"no {name}: {error}")

    with progress.stage("images", 2) as advance:
        draw(saved_flow.SAMPLES, torch.cat(list(saved_flow.draw(flow, 64, seed=seed))), 8)
        advance(1)
        rows, along = min(8, len(validation) // 2), 10
        if rows:
            ways = interpolate(flow, validation[:rows], validation[rows : 2 * rows], along)
            draw(saved_flow.INTERPOLATIONS, ways.flatten(0, 1), along)
        advance(1)
