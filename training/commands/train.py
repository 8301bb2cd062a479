"""`flowgauge train`: learn a category from images of good parts."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.commands.options import Data

if TYPE_CHECKING:
    from training.run import TrainedBundle
    from training.run_all import CategoryResult
    from training.terminal.progress import ConsoleProgress

Categories = Annotated[list[str] | None, typer.Option(help="Name of the category's folder. May be repeated.")]
All = Annotated[bool, typer.Option("--all", help="Train all categories of the data folder.")]
Config = Annotated[Path | None, typer.Option(help="YAML file of the run.")]
Preset = Annotated[
    str | None,
    typer.Option(help="Preset of `flowgauge backbones list`; the YAML overrides it."),
]
Models = Annotated[
    Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder that the model is published to.")
]
Runs = Annotated[
    Path, typer.Option(envvar="FLOWGAUGE_RUNS", help="Folder of checkpoints and cached features.")
]
Starter = Annotated[
    bool, typer.Option("--starter", help="Fit a starter version to 10 or more images, in seconds.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a stopped run, or reuse a finished one.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the split and of the fit.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the images.")]
TargetFpr = Annotated[float | None, typer.Option(help="Share of good parts that may be rejected, e.g. 0.01.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
TensorBoard = Annotated[Path | None, typer.Option(help="Folder of logs for TensorBoard.")]


def train(
    data: Data,
    category: Categories = None,
    every: All = False,
    config: Config = None,
    preset: Preset = None,
    models: Models = Path("models"),
    runs: Runs = Path("runs"),
    starter: Starter = False,
    resume: Resume = False,
    seed: Seed = None,
    epochs: Epochs = None,
    target_fpr: TargetFpr = None,
    threads: Threads = None,
    device: Device = None,
    tensorboard: TensorBoard = None,
) -> None:
    """Learn a category from images of good parts, calibrate it and publish it.

    Test images are never read. A share of the good images is held out of the fit to set a threshold with a
    promised false-reject rate. Options override the YAML.

    A category that fails does not stop the others. RUNS/summary.json holds the outcome of each.

    A starter has no flow. It is less accurate, and replaced by training without `--starter` once there are
    more images.

    Examples:

    - flowgauge train --data datasets/elpv --category solar_cell
    - flowgauge train --data line3 --category valve --starter
    - flowgauge train --data mvtec --all --resume
    """
    from rich.console import Console

    from training.config.load_config import load_config
    from training.run import train as run
    from training.run_all import train_each
    from training.terminal.progress import ConsoleProgress

    names = _category_names(data, category or [], every=every)
    overrides = {"seed": seed, "epochs": epochs, "target_fpr": target_fpr, "threads": threads}
    places = {"device": device, "tensorboard": None if tensorboard is None else str(tensorboard)}
    configs = {name: load_config(config, name, preset=preset, **overrides, **places) for name in names}
    if starter:
        configs = {name: settings.as_starter() for name, settings in configs.items()}
    progress = ConsoleProgress(Console())
    _print_notes(data, names, config, progress, every=every)
    if every or len(names) > 1:
        results = train_each(configs, data, models=models, runs=runs, resume=resume, progress=progress)
        _print_results(results, runs, progress)
        return
    [(name, settings)] = configs.items()
    outcome = run(settings, data, name, models=models, runs=runs, resume=resume, progress=progress)
    _print_threshold(outcome, progress)
    progress.say(f"published and active: {outcome.bundle}")
    _print_next(data, name, models, progress)


def _category_names(data: Path, given: list[str], *, every: bool) -> list[str]:
    """List the categories to train: those given, each once, or all in the data folder."""
    from training.data.layout import require_categories

    if every == bool(given):
        raise typer.BadParameter(
            "choose the categories: --category NAME (once or several times) or --all",
            param_hint="'--category' / '--all'",
        )
    return list(dict.fromkeys(given)) or require_categories(data)


def _print_notes(
    data: Path, names: Collection[str], config: Path | None, progress: "ConsoleProgress", *, every: bool
) -> None:
    """Report folders without a layout, and settings of categories that the data folder lacks."""
    from training.config.load_config import categories_with_settings
    from training.data.layout import categories, folders_without_layout

    for skipped in folders_without_layout(data) if every else ():
        progress.say(
            f"note: {skipped} is skipped, since its images are in no known layout; --category {skipped} "
            "lists the layouts"
        )
    configured = set(categories_with_settings(config)) - set(names)
    for unknown in sorted(configured - set(categories(data)) if configured else ()):
        progress.say(f"note: {config} has settings for {unknown!r}, which {data} does not hold")


def _print_results(results: "Sequence[CategoryResult]", runs: Path, progress: "ConsoleProgress") -> None:
    from training.run_all import SUMMARY, table

    progress.say("")
    for line in table(results):
        progress.say(line)
    progress.say(f"summary: {runs / SUMMARY}")
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


def _print_threshold(outcome: "TrainedBundle", progress: "ConsoleProgress") -> None:
    from flows.fastflow.bundle.bundle import read_manifest
    from flows.fastflow.calibration.conformal import describe_promise
    from flows.fastflow.calibration.review_band import describe_empty_band

    manifest = read_manifest(outcome.bundle)
    threshold = manifest.thresholds["float32"]
    promise = describe_promise(threshold.n_calibration, threshold.target_fpr)
    if manifest.starter:
        progress.say(
            f"threshold {threshold.reject:.4f}: a starter of {threshold.n_calibration} images, NOT "
            f"certified. It is expected to reject {promise}."
        )
    elif threshold.certified:
        progress.say(
            f"threshold {threshold.reject:.4f}: certified for {threshold.target_fpr:.2%} by "
            f"{threshold.n_calibration} held-out images. It rejects {promise}."
        )
    else:
        progress.say(
            f"threshold {threshold.reject:.4f}: NOT certified. {threshold.n_calibration} held-out images "
            f"cannot promise {threshold.target_fpr:.2%}. It rejects {promise}."
        )
    if text := describe_empty_band(threshold.n_calibration, threshold.target_fpr, manifest.review_fpr):
        progress.say(text)


def _print_next(data: Path, category: str, models: Path, progress: "ConsoleProgress") -> None:
    from training.data.layout import test_samples
    from training.data.sample import DatasetError

    try:
        test_samples(data, category)
        command = ["flowgauge", "evaluate", "--data", data, "--category", category, "--models", models]
    except (DatasetError, OSError):  # e.g. a folder with only good parts
        command = ["flowgauge", "serve", "--models", models]
    progress.say(f"next: {shlex.join(map(str, command))}")
