"""`flowgauge evaluate`: measure published models on test images."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.commands.options import Data, Device, Models, PrecisionName, ProgressFormat

if TYPE_CHECKING:
    from training.evaluation.comparison.compare import PeerSettings
    from training.evaluation.evaluate import EvaluatedVersion
    from training.terminal.progress import Progress

Categories = Annotated[
    list[str] | None,
    typer.Option(
        help="Name of the category's folder. May be repeated; by default all categories with a model."
    ),
]
Version = Annotated[
    str | None, typer.Option(help="Version, for a single category; by default the active one.")
]
Out = Annotated[Path, typer.Option(help="Folder of the results, in OUT/CATEGORY/VERSION.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", min=1, show_default="torch's choice")]
Compare = Annotated[
    bool, typer.Option("--compare", help="Also measure anomalib's PaDiM and PatchCore on the same images.")
]
ComparePython = Annotated[
    Path | None, typer.Option(help="Python that has anomalib; by default the current one.")
]
CompareCoreset = Annotated[
    float | None, typer.Option(help="Share of the patches that PatchCore keeps.", show_default="0.01")
]


def evaluate(
    data: Data,
    category: Categories = None,
    version: Version = None,
    models: Models = Path("models"),
    out: Out = Path("evaluations"),
    threads: Threads = None,
    device: Device = "auto",
    precision: PrecisionName = "float32",
    compare: Compare = False,
    compare_python: ComparePython = None,
    compare_coreset: CompareCoreset = None,
    progress: ProgressFormat = "text",
) -> None:
    """Measure published models on test images that training never reads.

    Prints metrics of images and, with masks, of pixels, and the error rates at the threshold. Writes
    scores.csv, summary.json and report.html, one self-contained file; OUT/index.html lists all categories.

    Decisions follow the version's own calibration, not later settings of the server.

    Example: flowgauge evaluate --data datasets/elpv --category solar_cell
    """
    names = _category_names(data, category or [], models, version)
    if len(names) > 1 and (version is not None or progress == "json"):
        raise typer.BadParameter("a version or a JSON result is of one category; name it with --category")
    # Imported last: torch takes seconds, and what is wrong with the arguments is said at once.
    import torch

    from flows.fastflow.progress import write_event
    from training.evaluation.evaluate import evaluate_version
    from training.terminal.progress import open_progress

    if threads is not None:
        torch.set_num_threads(threads)
    peers = _peer_settings(compare_python, compare_coreset, compare=compare)
    reporter = open_progress(progress, {"data": 1, "evaluate": 9})
    measure = partial(
        evaluate_version,
        data,
        version=version,
        models=models,
        out=out,
        device=device,
        precision=precision,
        peers=peers,
        progress=reporter,
    )
    done = _measure_each(names, measure, out, reporter, is_named=bool(category))
    if progress == "json":
        write_event("result", summary=done[0].summary, report=str(done[0].report))


def _category_names(data: Path, given: Sequence[str], models: Path, version: str | None) -> list[str]:
    """List the categories to evaluate: those given, each once, or all that have a published model.

    Raises:
        BundleError, DatasetError: a single one has no such version or no test images.
    """
    from flows.fastflow.bundle.models_folder import active_version, is_category, resolve
    from training.data.layout import categories, test_samples
    from training.data.sample import DatasetError

    names = list(dict.fromkeys(given))
    if not names:
        there = categories(data)
        names = [name for name in there if is_category(name) and active_version(models, name)]
        if not names:
            raise DatasetError(
                f"no category of {data} has a published model in {models}; "
                f"categories there: {', '.join(there) or 'none'}. Train one first: flowgauge train"
            )
    if given and len(names) == 1:
        resolve(models, names[0], version)
        test_samples(data, names[0])
    return names


def _peer_settings(python: Path | None, coreset: float | None, *, compare: bool) -> "PeerSettings | None":
    import torch

    from training.evaluation.comparison.compare import PeerSettings

    for option, value in {"--compare-python": python, "--compare-coreset": coreset}.items():
        if value is not None and not compare:
            raise typer.BadParameter("this option belongs to a comparison: add --compare", param_hint=option)
    if not compare:
        return None
    return PeerSettings(python, 0.01 if coreset is None else coreset, torch.get_num_threads())


def _measure_each(
    names: Sequence[str],
    measure: "Callable[[str], EvaluatedVersion]",
    out: Path,
    progress: "Progress",
    *,
    is_named: bool,
) -> "list[EvaluatedVersion]":
    """Evaluate categories in turn, print the results, and write the index; exit with 1 if one failed.

    One of several that fails does not stop the others.
    """
    from training.data.sample import NoTestImagesError
    from training.evaluation.report.index import write_index
    from training.evaluation.report_text import overview_lines, report_lines

    done: list[EvaluatedVersion] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            done.append(measure(name))
        except (ValueError, OSError) as error:
            if len(names) == 1:
                raise
            # A model needs good parts only, so an unnamed category without test images is no failure.
            if isinstance(error, NoTestImagesError) and not is_named:
                progress.say(f"{name} is skipped: {error}")
                continue
            failed[name] = str(error)
            progress.say(f"{name} failed: {error}")
            continue
        for line in report_lines(done[-1]):
            progress.say(line)
    if done:
        progress.say(f"all categories: {write_index(out)}")
    if len(names) > 1:
        for line in overview_lines([version.summary for version in done]):
            progress.say(line)
    if failed:
        progress.say(f"{len(failed)} of {len(names)} categories failed:")
        for name, reason in failed.items():
            progress.say(f"  {name}: {reason}")
    if failed or not done:
        raise typer.Exit(1)
    return done
