"""`flowgauge train`: learn a category from pictures of good parts."""

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[Path, typer.Option(help="Folder that holds DIR/CATEGORY/train/good, as MVTec AD does.")],
    category: Annotated[str, typer.Option(help="The category: the name of its folder.")],
    config: Annotated[Path | None, typer.Option(help="A run's YAML. Without it, the defaults.")] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Where the model is published.")
    ] = Path("models"),
    runs: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_RUNS", help="Checkpoints and cached features.")
    ] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was stopped, or reuse a done one.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the split and of the fit.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures.")] = None,
    target_fpr: Annotated[
        float | None, typer.Option(help="Share of good parts that may be rejected, e.g. 0.01.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
) -> None:
    """Learn a category from pictures of good parts, calibrate it and publish it.

    Reads train/good alone; test pictures are for `flowgauge evaluate`. A share of the good pictures is held
    out of the fit to set the threshold, so that the false-reject rate is a promise and not a hope. Options
    given here win over the YAML.

    Example: flowgauge train --data datasets/elpv --category solar_cell
    """
    from rich.console import Console

    from flows.fastflow.bundle import read_manifest
    from training.config import load_config
    from training.progress import ConsoleProgress
    from training.run import train as run

    start = time.monotonic()
    console = Console()
    settings = load_config(
        config, seed=seed, epochs=epochs, target_fpr=target_fpr, threads=threads, device=device
    )
    progress = ConsoleProgress(console)
    outcome = run(settings, data, category, models=models, runs=runs, resume=resume, progress=progress)
    threshold = read_manifest(outcome.bundle).thresholds["float32"]
    if not outcome.reused:
        progress.say(f"trained in {time.monotonic() - start:.0f} s")
    if threshold.certified:
        progress.say(
            f"threshold {threshold.reject:.4f}: certified to reject on average at most "
            f"{threshold.target_fpr:.2%} of good parts (here {threshold.achievable_fpr:.2%}), from "
            f"{threshold.n_calibration} held-out pictures"
        )
    else:
        progress.say(
            f"threshold {threshold.reject:.4f}: NOT certified. {threshold.n_calibration} held-out pictures "
            f"cannot promise {threshold.target_fpr:.2%} false rejects; the best they can is "
            f"{threshold.achievable_fpr:.2%}. More good pictures, or a larger --target-fpr, would do."
        )
    progress.say(f"published and active: {outcome.bundle}")
    following = [
        "flowgauge",
        "evaluate",
        "--data",
        str(data),
        "--category",
        category,
        "--models",
        str(models),
    ]
    progress.say(f"next: {shlex.join(following)}")
