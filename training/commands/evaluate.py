"""`flowgauge evaluate`: measure published models on test images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.evaluation.evaluate import EvaluatedVersion
    from training.terminal.progress import Progress


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of the categories; see docs/how-to/prepare-data.md.")],
    category: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of the category's folder. May be repeated; by default all categories with a model."
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Version, for a single category; by default the active one.")
    ] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder of the published models.")
    ] = Path("models"),
    out: Annotated[Path, typer.Option(help="Folder of the results, in OUT/CATEGORY/VERSION.")] = Path(
        "evaluations"
    ),
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", min=1, show_default="torch's choice")
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(help="float32, or bfloat16 or openvino-bfloat16 if the model is calibrated for it."),
    ] = "float32",
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Also fit and measure anomalib's PaDiM and PatchCore on the same images."
        ),
    ] = False,
    compare_python: Annotated[
        Path | None,
        typer.Option(help="Python interpreter that has anomalib; by default the current one."),
    ] = None,
    compare_coreset: Annotated[
        float | None,
        typer.Option(help="Share of the patches that PatchCore keeps.", show_default="0.01"),
    ] = None,
) -> None:
    """Measure published models on test images that training never reads.

    Prints how well scores rank images and, with masks, how well maps rank pixels. Also prints the good parts
    rejected and the defective parts found at the threshold, by kind of defect. Results are scores.csv,
    summary.json and report.html, which is one self-contained file; OUT/index.html lists all categories.

    Decisions follow the version's own calibration, not later settings of the server.

    Example: flowgauge evaluate --data datasets/elpv --category solar_cell
    """
    import torch
    from rich.console import Console

    from flows.fastflow.manifest import PRECISIONS
    from training.evaluation.comparison.compare import PeerSettings
    from training.evaluation.evaluate import categories_with_models, evaluate_version
    from training.terminal.progress import ConsoleProgress

    engine = next((known for known in PRECISIONS if known == precision), None)
    if engine is None:
        raise typer.BadParameter(f"{precision!r}: use {' or '.join(PRECISIONS)}", param_hint="--precision")
    for option, value in {"--compare-python": compare_python, "--compare-coreset": compare_coreset}.items():
        if value is not None and not compare:
            raise typer.BadParameter("it is of a comparison: add --compare", param_hint=option)
    names = list(dict.fromkeys(category)) if category else categories_with_models(data, models)
    if version is not None and len(names) > 1:
        raise typer.BadParameter("a version belongs to one category; name it with --category")
    if threads is not None:
        torch.set_num_threads(threads)
    coreset = 0.01 if compare_coreset is None else compare_coreset
    peers = PeerSettings(compare_python, coreset, torch.get_num_threads()) if compare else None
    progress = ConsoleProgress(Console())

    def measure(name: str) -> "EvaluatedVersion":
        return evaluate_version(
            data,
            name,
            version,
            models=models,
            out=out,
            device=device,
            precision=engine,
            peers=peers,
            progress=progress,
        )

    _measure_each(names, measure, out, progress, is_named=bool(category))


def _measure_each(
    names: Sequence[str],
    measure: Callable[[str], "EvaluatedVersion"],
    out: Path,
    progress: "Progress",
    *,
    is_named: bool,
) -> None:
    """Measure categories in turn, say what was found, and write the page over them; exit 1 if one failed.

    Of several, one that fails does not keep the others from being measured.
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
            # Good parts alone do for a model: of those that nobody has named it is no failure.
            if isinstance(error, NoTestImagesError) and not is_named:
                progress.say(f"{name} is passed over: {error}")
                continue
            failed[name] = str(error)
            progress.say(f"{name} failed: {error}")
            continue
        for line in report_lines(done[-1]):
            progress.say(line)
    if done:
        progress.say(f"all categories: {write_index(out)}")
    if len(names) > 1:
        for line in overview_lines([found.summary for found in done]):
            progress.say(line)
    if failed:
        progress.say(f"{len(failed)} of {len(names)} categories failed:")
        for name, reason in failed.items():
            progress.say(f"  {name}: {reason}")
    if failed or not done:
        raise typer.Exit(1)
