"""`flowgauge train`: learn a category from images of good parts."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.run import TrainedBundle
    from training.terminal.progress import ConsoleProgress


def train(
    data: Annotated[Path, typer.Option(help="Folder of the categories; see docs/how-to/prepare-data.md.")],
    category: Annotated[
        list[str] | None, typer.Option(help="Name of the category's folder. May be repeated.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Train all categories of the data folder.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of the run; by default none.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Preset of a backbone, overridden by the YAML; see `flowgauge backbones list`."),
    ] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder that the model is published to.")
    ] = Path("models"),
    runs: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_RUNS", help="Folder of checkpoints and cached features.")
    ] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a stopped run, or reuse a finished one.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the split and of the fit.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    target_fpr: Annotated[
        float | None, typer.Option(help="Share of good parts that may be rejected, e.g. 0.01.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    device: Annotated[str | None, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder of logs for TensorBoard; needs the package tensorboard.")
    ] = None,
) -> None:
    """Learn a category from images of good parts, calibrate it and publish it.

    Only good training images are read, never test images. A share of them is held out of the fit to set a
    threshold with a certified false-reject rate. Options override the YAML.

    Several categories are trained one after the other; one that fails does not stop the others. A table at
    the end, also in RUNS/summary.json, shows the outcome of each. Exit code 1: a category failed.

    Examples:

    - flowgauge train --data datasets/elpv --category solar_cell
    - flowgauge train --data mvtec --all --resume
    """
    from rich.console import Console

    from training.config.load_config import categories_with_settings, load_config
    from training.data.layout import categories, folders_without_layout
    from training.run import train as run
    from training.run_all import SUMMARY, table, train_each
    from training.terminal.progress import ConsoleProgress

    if every == bool(category):
        raise typer.BadParameter(
            "say what to learn, by --category NAME (once or several times) or by --all",
            param_hint="'--category' / '--all'",
        )
    names = _names(data, category or [])
    configs = {
        name: load_config(
            config,
            name,
            preset=preset,
            seed=seed,
            epochs=epochs,
            target_fpr=target_fpr,
            threads=threads,
            device=device,
            tensorboard=None if tensorboard is None else str(tensorboard),
        )
        for name in names
    }
    progress = ConsoleProgress(Console())
    for passed_over in folders_without_layout(data) if every else ():
        progress.say(
            f"note: passed over is {passed_over}, whose images are in none of the layouts: --category "
            f"{passed_over} says which"
        )
    special = set(categories_with_settings(config)) - set(names)
    for stranger in sorted(special - set(categories(data)) if special else ()):
        progress.say(f"note: {config} has settings for {stranger!r}, which {data} does not hold")
    if len(names) == 1 and not every:
        outcome = run(
            configs[names[0]], data, names[0], models=models, runs=runs, resume=resume, progress=progress
        )
        _say_threshold(outcome, progress)
        progress.say(f"published and active: {outcome.bundle}")
        _say_next(data, names[0], models, progress)
        return
    results = train_each(configs, data, models=models, runs=runs, resume=resume, progress=progress)
    progress.say("")
    for line in table(results):
        progress.say(line)
    progress.say(f"summary: {runs / SUMMARY}")
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


def _names(data: Path, given: list[str]) -> list[str]:
    """The categories to train: those given, each once, or all that the data folder holds."""
    from training.data.layout import require_categories

    return list(dict.fromkeys(given)) or require_categories(data)


def _say_threshold(outcome: "TrainedBundle", progress: "ConsoleProgress") -> None:
    from flows.fastflow.bundle.bundle import read_manifest
    from flows.fastflow.calibration.review_band import describe_empty_band

    manifest = read_manifest(outcome.bundle)
    threshold = manifest.thresholds["float32"]
    if threshold.certified:
        progress.say(
            f"threshold {threshold.reject:.4f}: certified to reject on average at most "
            f"{threshold.target_fpr:.2%} of good images (here {threshold.achievable_fpr:.2%}), from "
            f"{threshold.n_calibration} held-out images"
        )
    else:
        progress.say(
            f"threshold {threshold.reject:.4f}: NOT certified. {threshold.n_calibration} held-out images "
            f"cannot promise {threshold.target_fpr:.2%} false rejects; the best they can is "
            f"{threshold.achievable_fpr:.2%}. More good images, or a larger --target-fpr, would do."
        )
    if said := describe_empty_band(threshold.n_calibration, threshold.target_fpr, manifest.review_fpr):
        progress.say(said)


def _say_next(data: Path, category: str, models: Path, progress: "ConsoleProgress") -> None:
    from training.data.layout import test_samples
    from training.data.sample import DatasetError

    try:
        test_samples(data, category)
        following = ["flowgauge", "evaluate", "--data", data, "--category", category, "--models", models]
    except (DatasetError, OSError):  # as of good parts alone
        following = ["flowgauge", "serve", "--models", models]
    progress.say(f"next: {shlex.join(map(str, following))}")
