"""Checks before the fit: the folder, the images, and settings that will disappoint."""

import os
from pathlib import Path

from flows.fastflow.calibration.review_band import describe_empty_band
from flows.fastflow.files.atomic_files import temporary_directory
from training.config.geometry_config import DEFAULT_INPUT
from training.config.unused_settings import unused_settings
from training.data.augment import require_square
from training.data.check.data_check import check_data
from training.data.split import describe_shortage
from training.fit.preparation import Run
from training.fit.run_folder import DATA_CHECK, describe_discarded


def check_run(run: Run) -> None:
    """Check folder and images, record the data check, and print what will be fitted to what.

    Raises:
        OSError: the category's models folder cannot be written to.
        DatasetError: images cannot be decoded; they are named.
        AugmentError: images should be turned by right angles and are not square.
    """
    _require_writable(run.models / run.category)
    _check_images(run)
    _print_plan(run)


def announce_restart(run: Run, *, finished: bool) -> None:
    """Print what a run without --resume discards."""
    if not run.resume and (text := describe_discarded(run.folder, finished=finished)) is not None:
        run.progress.say(text)


def _check_images(run: Run) -> None:
    """Check the training images only; `flowgauge data check` covers the test images."""
    checked = check_data(
        run.data,
        run.category,
        test=False,
        threads=run.config.fit.threads,
        sample_bits=run.config.sample_bits,
        stage=run.progress.stage,
    )
    (run.folder / DATA_CHECK).write_text(checked.model_dump_json(indent=1), encoding="utf-8")
    checked.raise_for_errors()
    for line in checked.lines():
        run.progress.say(line)


def _print_plan(run: Run) -> None:
    config, images, say = run.config, run.images, run.progress.say
    for line in unused_settings(config):
        say(line)
    if config.augment.right_angles:
        require_square([images.pinned[i] for i in images.split.fit])
    of_parts = "" if images.part_count is None else f" of {images.part_count} parts"
    held_out, calibration = len(images.held_out), config.calibration
    use = (
        "all to fit a starter and to calibrate it"
        if config.starter
        else f"{len(images.split.seen)} to fit, {held_out} held out to calibrate"
    )
    say(
        f"{len(images.paths)} good images{of_parts} of {run.category}: {use}"
        f"{', one of each part' if of_parts else ''}; on {run.device}"
    )
    if run.geometry_reason is not None:
        batch = "" if run.input_size == DEFAULT_INPUT else f"; {config.fit.batch_size} images an update"
        say(f"geometry: {run.geometry_reason}{batch}")
    for line in describe_shortage(held_out, calibration, parts=images.part_count is not None):
        if not config.starter:
            say(line)
    if text := describe_empty_band(held_out, calibration.target_fpr, calibration.review_fpr):
        say(text)
    if run.device.type == "cpu" and not config.starter and (text := _thread_advice(config.fit.threads)):
        say(text)


def _thread_advice(threads: int) -> str | None:
    """Recommend another number of threads for this machine; None if there is none to recommend."""
    cores = os.cpu_count() or threads
    if threads > cores:
        return (
            f"fit.threads is {threads}, on {cores} cores: threads that wait for each other "
            f"take many times as long; --threads {cores} is faster"
        )
    if cores >= 2 * threads:
        return (
            f"fit.threads is {threads}, of {cores} cores: more, by --threads, may be faster, "
            "and change the last digits of results"
        )
    return None


def _require_writable(folder: Path) -> None:
    """Raise OSError unless a model can be published; creates no folder.

    A folder without a version would look like a category. The check writes into the closest folder that
    exists: a folder made and removed again could vanish under another run that starts.
    """
    with temporary_directory(next(path for path in (folder, *folder.parents) if os.path.lexists(path))):
        pass
