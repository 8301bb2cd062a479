"""`flowgauge train`: learn a category from images of good parts."""

import math
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from training.commands.options import Data, ProgressFormat

if TYPE_CHECKING:
    from training.config.run_config import RunConfig
    from training.run import TrainedBundle
    from training.run_all import CategoryResult
    from training.terminal.progress import Progress

Categories = Annotated[list[str] | None, typer.Option(help="Name of the category's folder. May be repeated.")]
All = Annotated[bool, typer.Option("--all", help="Train all categories of the data folder.")]
Config = Annotated[Path | None, typer.Option(help="YAML file of the run.")]
Preset = Annotated[
    str | None, typer.Option(help="Preset of `flowgauge backbones list`; the YAML overrides it.")
]
Models = Annotated[
    Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder that the model is published to.")
]
Runs = Annotated[
    Path, typer.Option(envvar="FLOWGAUGE_RUNS", help="Folder of checkpoints and cached features.")
]
Starter = Annotated[
    bool, typer.Option("--starter", help="Fit a starter, less accurate, to 10 or more images, in seconds.")
]
NoActivate = Annotated[
    bool, typer.Option("--no-activate", help="Publish the version, and leave the active one as it is.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a stopped run, or reuse a finished one.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the split and of the fit.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the images.")]
TargetFpr = Annotated[float | None, typer.Option(help="Share of good parts that may be rejected, e.g. 0.01.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray", envvar="FLOWGAUGE_RAY", help="Train on a Ray cluster: auto, HOST:PORT or local."),
]
TensorBoard = Annotated[Path | None, typer.Option(help="Folder of logs for TensorBoard.")]

# Seconds with 200 images on two cores.
_STAGES: Final = {"data": 3, "features": 14, "fit": 240, "calibrate": 6, "describe": 20, "publish": 4}
_STARTER_STAGES: Final = {"data": 1, "features": 3, "calibrate": 6, "publish": 2}


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
    no_activate: NoActivate = False,
    ray: RayAddress = None,
    progress: ProgressFormat = "text",
) -> None:
    """Learn a category from images of good parts, calibrate it and publish it.

    Test images are never read. A share of the good images is held out of the fit to set a threshold with a
    promised false-reject rate. Options override the YAML.

    A category that fails does not stop the others. RUNS/summary.json holds the outcome of each.

    Examples:

    - flowgauge train --data datasets/elpv --category solar_cell
    - flowgauge train --data line3 --category valve --starter
    - flowgauge train --data mvtec --all --resume
    - flowgauge train --data /mnt/mvtec --models /mnt/models --runs /mnt/runs --all --ray auto
    """
    from flows.fastflow.bundle.models_folder import require_own
    from training.config.load_config import load_config

    require_own(models)
    names = _category_names(data, category or [], every=every, single=no_activate or progress == "json")
    overrides = {"seed": seed, "epochs": epochs, "target_fpr": target_fpr, "threads": threads}
    places = {"device": device, "tensorboard": None if tensorboard is None else str(tensorboard)}
    configs = {name: load_config(config, name, preset=preset, **overrides, **places) for name in names}
    if starter:
        configs = {name: settings.as_starter() for name, settings in configs.items()}
    # Imported last: torch takes seconds, and what is wrong with the arguments is said at once.
    from training.terminal.progress import open_progress

    reporter = open_progress(progress, _STARTER_STAGES if starter else _STAGES)
    _print_notes(data, names, config, reporter, every=every)
    several, active = every or len(names) > 1, not no_activate
    options: dict[str, Any] = {"models": models, "runs": runs, "resume": resume, "progress": reporter}
    if several:
        _print_results(_train_several(ray, configs, data, **options), runs, reporter)
    else:
        outcome = _train_one(ray, configs, data, make_active=active, **options)
        _report(outcome, data, models, reporter, is_active=active, as_event=progress == "json")


def _train_several(ray: str | None, *configs_and_data: Any, **options: Any) -> "list[CategoryResult]":
    if ray:
        from training.cluster.train_on_cluster import train_on_cluster

        return train_on_cluster(ray, *configs_and_data, **options)
    from training.run_all import train_each

    return train_each(*configs_and_data, **options)


def _train_one(
    ray: str | None, configs: "dict[str, RunConfig]", data: Path, *, models: Path, **options: Any
) -> "TrainedBundle":
    if ray:
        from training.cluster.train_on_cluster import train_on_cluster
        from training.run_all import require_trained

        [result] = train_on_cluster(ray, configs, data, models=models, displace=True, **options)
        return require_trained(result, models)
    from training.run import train as run

    [(name, config)] = configs.items()
    return run(config, data, name, models=models, **options)


def _category_names(data: Path, given: list[str], *, every: bool, single: bool) -> list[str]:
    """List the categories to train: those given, each once, or all in the data folder.

    Raises:
        typer.BadParameter: none are given, or several where a `single` one is wanted.
    """
    from training.data.layout import require_categories, train_images

    if every == bool(given):
        raise typer.BadParameter(
            "choose the categories: --category NAME (once or several times) or --all",
            param_hint="'--category' / '--all'",
        )
    names = list(dict.fromkeys(given)) or require_categories(data)
    if single and (every or len(names) > 1):
        raise typer.BadParameter("--no-activate and --progress json are for one category; name it")
    if len(names) == 1:  # one of several that fails does not stop the others
        train_images(data, names[0])
    return names


def _print_notes(
    data: Path, names: Collection[str], config: Path | None, reporter: "Progress", *, every: bool
) -> None:
    """Report folders without a layout, and settings of categories that the data folder lacks."""
    from training.config.load_config import categories_with_settings
    from training.data.layout import categories, folders_without_layout

    for skipped in folders_without_layout(data) if every else ():
        reporter.say(
            f"note: {skipped} is skipped, since its images are in no known layout; --category {skipped} "
            "lists the layouts"
        )
    configured = set(categories_with_settings(config)) - set(names)
    for unknown in sorted(configured - set(categories(data)) if configured else ()):
        reporter.say(f"note: {config} has settings for {unknown!r}, which {data} does not hold")


def _print_results(results: "Sequence[CategoryResult]", runs: Path, reporter: "Progress") -> None:
    from training.run_all import SUMMARY, table

    reporter.say("")
    for line in table(results):
        reporter.say(line)
    reporter.say(f"summary: {runs / SUMMARY}")
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


def _print_threshold(outcome: "TrainedBundle", reporter: "Progress") -> None:
    from flows.fastflow.bundle.bundle import read_manifest
    from flows.fastflow.calibration.conformal import describe_promise
    from flows.fastflow.calibration.review_band import describe_empty_band

    manifest = read_manifest(outcome.bundle)
    threshold = manifest.thresholds["float32"]
    images, rate = threshold.n_calibration, f"{threshold.target_fpr:.2%}"
    promise = describe_promise(images, threshold.target_fpr)
    if manifest.starter:
        text = f"a starter of {images} images, NOT certified. It is expected to reject {promise}"
    elif threshold.certified:
        text = f"certified for {rate} by {images} held-out images. It rejects {promise}"
    else:
        text = f"NOT certified. {images} held-out images cannot promise {rate}. It rejects {promise}"
    reporter.say(f"threshold {threshold.reject:.4f}: {text}.")
    lowest = math.ceil(10_000 / (images + 1)) / 10_000
    if not manifest.starter:
        reporter.say(
            f"the lowest rate that {images} images can promise is {lowest:.2%}: set it on the model's page "
            f"of the server, or train with --target-fpr {lowest:g} --resume, which fits nothing anew"
        )
    if note := describe_empty_band(images, threshold.target_fpr, manifest.review_fpr):
        reporter.say(note)


def _report(
    outcome: "TrainedBundle",
    data: Path,
    models: Path,
    reporter: "Progress",
    *,
    is_active: bool,
    as_event: bool,
) -> None:
    """Print threshold, version and the next command, and write the result if it is an event."""
    _print_threshold(outcome, reporter)
    category, version = outcome.bundle.parent.name, outcome.bundle.name
    if is_active:
        reporter.say(f"published and active: {outcome.bundle}")
        _print_next(data, category, models, reporter)
    else:
        reporter.say(f"published, not activated: {outcome.bundle}")
        activate = ["flowgauge", "models", "activate", category, version, "--models", str(models)]
        reporter.say(f"next: {shlex.join(activate)}")
    if as_event:
        _write_result(outcome)


def _write_result(outcome: "TrainedBundle") -> None:
    from flows.fastflow.bundle.bundle import read_manifest
    from flows.fastflow.progress import write_event

    manifest = read_manifest(outcome.bundle)
    write_event(
        "result",
        category=manifest.category,
        version=manifest.version,
        reused=outcome.reused,
        **manifest.thresholds["float32"].model_dump(),
    )


def _print_next(data: Path, category: str, models: Path, reporter: "Progress") -> None:
    from training.data.layout import test_samples
    from training.data.sample import DatasetError

    try:
        test_samples(data, category)
        command = ["flowgauge", "evaluate", "--data", data, "--category", category, "--models", models]
    except (DatasetError, OSError):  # e.g. a folder with only good parts
        command = ["flowgauge", "serve", "--models", models]
    reporter.say(f"next: {shlex.join(map(str, command))}")
