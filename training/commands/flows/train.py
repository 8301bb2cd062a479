"""`flowgauge flows train`: fit a flow to images."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.commands.options import Device, Seed, Threads

if TYPE_CHECKING:
    from flows import Flow
    from training.density.fit import FitSettings
    from training.density.image_data import ImageSplits
    from training.terminal.progress import Progress

RecipeName = Annotated[str, typer.Argument(help="nice, realnvp, glow, spline or maf.")]
Data = Annotated[
    str, typer.Option(help="digits (of scikit-learn), or a folder with images, such as ./digits.")
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder of the run; by default runs-flows/RECIPE-DATA.", show_default=False),
]
Size = Annotated[
    int | None, typer.Option(help="Side of a folder's images in pixels; by default 32.", min=1, max=1024)
]
Channels = Annotated[int | None, typer.Option(help="1 for grey, 3 for colour; by default 3.", min=1, max=3)]
Steps = Annotated[int, typer.Option(help="Optimiser steps.", min=1)]
BatchSize = Annotated[int, typer.Option(help="Images per step.", min=2)]
LearningRate = Annotated[float, typer.Option(help="Highest learning rate.", min=1e-8, max=1.0)]
Hidden = Annotated[
    int | None, typer.Option(help="Width of the hidden layers; by default the recipe's.", min=1, max=65536)
]
Depth = Annotated[
    int | None,
    typer.Option(
        help="Couplings of NICE, steps per scale of Glow and spline, layers of MAF, blocks of RealNVP.",
        min=1,
        max=65536,
    ),
]
Scales = Annotated[
    int | None, typer.Option(help="Resolutions of RealNVP, Glow and spline; by default 2.", min=1, max=16)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")]


def train(
    recipe: RecipeName,
    data: Data,
    out: Out = None,
    size: Size = None,
    channels: Channels = None,
    steps: Steps = 2000,
    batch_size: BatchSize = 128,
    learning_rate: LearningRate = 2e-3,
    seed: Seed = 0,
    hidden: Hidden = None,
    depth: Depth = None,
    scales: Scales = None,
    overwrite: Overwrite = False,
    threads: Threads = 2,
    device: Device = "auto",
) -> None:
    """Fit a flow to images by maximum likelihood, and save it with samples.

    The likelihood is printed in bits per dimension, less is better: a bound for pixels with uniform noise
    (arXiv 1511.01844). The weights that do best on held-out images are kept, also if the fit diverges.

    Example: flowgauge flows train glow --data digits
    """
    import torch  # here: it takes seconds, and --help must not

    from flows.fastflow.engines.device import pick_device
    from training.commands.flows.images import load_fit_images
    from training.density import named_recipes, saved_flow
    from training.density.fit import FitSettings
    from training.density.flow_record import DataSource, FitRecord, FlowRecord
    from training.terminal.progress import open_progress

    progress = open_progress("text", {})
    chosen = named_recipes.arguments(recipe, hidden=hidden, depth=depth, scales=scales)
    target = out or Path("runs-flows") / f"{recipe}-{Path(data).resolve().name}"
    saved_flow.check_target(target, overwrite=overwrite)
    where = pick_device(device)
    images = load_fit_images(data, size, channels, named_recipes.halvings(recipe, chosen))
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    flow = named_recipes.build(recipe, images.shape, images.levels, chosen).to(where)
    _print_plan(recipe, flow, images, str(where), progress)
    settings = FitSettings(steps, batch_size, learning_rate, every=max(1, min(100, steps // 10)), seed=seed)
    with saved_flow.new_run(target, overwrite=overwrite) as run:
        bits, seconds = _fit(flow, images, settings, run / saved_flow.METRICS, progress)
        record = FlowRecord(
            recipe=recipe,
            arguments=chosen,
            event_shape=images.shape,
            levels=images.levels,
            data=DataSource.from_images(images, data),
            settings=FitRecord.from_settings(settings, str(where), seconds),
            validation_bits_per_dim=bits,
        )
        saved_flow.save(run, flow, record)
    progress.say(f"{bits:.3f} bits/dim of held-out images, after {seconds:.0f} s\nkept: {target}")
    _draw(flow, images, target, seed, progress)
    command = f"flowgauge flows sample {shlex.quote(str(target))} --temperature 0.7 --out samples.png"
    progress.say(f"next: {command}")


def _print_plan(recipe: str, flow: "Flow", images: "ImageSplits", device: str, progress: "Progress") -> None:
    parameters = sum(p.numel() for p in flow.parameters())
    progress.say(
        f"{recipe}, {parameters:,} parameters, on {device}; {len(images.train)} images of {images.shape} and "
        f"{images.levels} levels to fit, {len(images.validation)} held out"
    )


def _fit(
    flow: "Flow", images: "ImageSplits", settings: "FitSettings", metrics_file: Path, progress: "Progress"
) -> tuple[float, float]:
    """Fit the flow with a line per evaluation; return bits per dimension of held-out images, and seconds."""
    import json
    import math
    import time

    from training.density.fit import FitPoint, fit
    from training.density.outliers import negative_log_likelihood

    device = next(flow.parameters()).device
    train, validation = images.train.to(device), images.validation.to(device)
    per_bit = math.prod(train.shape[1:]) * math.log(2)
    start = time.monotonic()
    steps = settings.steps
    # Line-buffered: a line is on disk once it is written.
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
    if not math.isfinite(bits):  # the noise differs from that of the points; the best of those is finite
        bits = min(point.validation for point in points if math.isfinite(point.validation)) / per_bit
    return bits, seconds


def _draw(flow: "Flow", images: "ImageSplits", folder: Path, seed: int, progress: "Progress") -> None:
    """Write sheets of samples and interpolations, if they can be drawn."""
    import torch

    from flows.fastflow.files.atomic_files import replace_file
    from training.density import saved_flow
    from training.density.interpolate import interpolate
    from training.density.sheets import SheetError, sheet

    def draw(name: str, drawn: torch.Tensor, columns: int) -> None:
        try:
            replace_file(folder / name, sheet(drawn, images.levels, columns=columns), sync=False)
        except SheetError as error:
            progress.say(f"no {name}: {error}")

    validation = images.validation.to(next(flow.parameters()).device)
    with progress.stage("images", 2) as advance:
        draw(saved_flow.SAMPLES, torch.cat(list(saved_flow.draw(flow, 64, seed=seed))), 8)
        advance(1)
        rows, points = min(8, len(validation) // 2), 10
        if rows:
            paths = interpolate(flow, validation[:rows], validation[rows : 2 * rows], points)
            draw(saved_flow.INTERPOLATIONS, paths.flatten(0, 1), points)
        advance(1)
