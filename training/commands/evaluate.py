"""`flowgauge evaluate`: measure a published model on test pictures."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder that holds DIR/CATEGORY/test, as MVTec AD does.")],
    category: Annotated[str, typer.Option(help="The category: the name of its folder.")],
    version: Annotated[str | None, typer.Option(help="A version. Without it, the active one.")] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Where models are published.")
    ] = Path("models"),
    out: Annotated[Path, typer.Option(help="Scores and figures are written to OUT/CATEGORY/VERSION.")] = Path(
        "evaluations"
    ),
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Measure a published model on test pictures it has never seen.

    Prints the area under the ROC curve of images and, where defects have masks, of pixels, on raw scores;
    and what the threshold did: good parts rejected, defective parts passed. Each picture's score goes to
    scores.csv, the figures to summary.json.

    Example: flowgauge evaluate --data datasets/elpv --category solar_cell
    """
    import csv
    import json

    import torch
    from rich.console import Console

    from flows.fastflow.bundle import resolve
    from flows.fastflow.conformal import false_reject_band
    from flows.fastflow.detector import Detector
    from training.datasets.mvtec import test_samples
    from training.evaluation import evaluate as run
    from training.progress import ConsoleProgress

    torch.set_num_threads(threads)
    progress = ConsoleProgress(Console())
    bundle = resolve(models, category, version)
    samples = test_samples(data, category)
    detector = Detector.load(bundle, device=device)
    with progress.stage("evaluate", len(samples)) as advance:
        result = run(detector, samples, advance)

    folder = out / category / bundle.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "defect", "score", "p_value", "decision"])
        for row in result.rows:
            writer.writerow([row.path, row.defect or "", repr(row.score), repr(row.p_value), row.decision])
    good = sum(row.defect is None for row in result.rows)
    summary = {
        "category": category,
        "version": bundle.name,
        "good": good,
        "defective": len(result.rows) - good,
        "image_auroc": result.image_auroc,
        "pixel_auroc": result.pixel_auroc,
        "with_mask": result.masked,
        "false_rejects": result.false_rejects,
        "escapes": result.escapes,
        "target_fpr": detector.threshold.target_fpr,
        "certified": detector.threshold.certified,
        "engine": detector.engine,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    progress.say(f"{bundle}: {good} good and {len(result.rows) - good} defective test pictures")
    if result.image_auroc is None:
        progress.say("image AUROC not measured: it needs good and defective test pictures")
    else:
        progress.say(f"image AUROC {result.image_auroc:.3f}")
    if result.pixel_auroc is None:
        progress.say("pixel AUROC not measured: no defect has a mask")
    else:
        without = len(result.rows) - good - result.masked
        left_out = f" ({without} defective pictures without a mask left out)" if without else ""
        progress.say(f"pixel AUROC {result.pixel_auroc:.3f}{left_out}")
    if result.false_rejects is not None:
        low, high = false_reject_band(
            detector.threshold.n_calibration, good, detector.threshold.target_fpr, confidence=0.95
        )
        asked = detector.threshold.target_fpr
        progress.say(
            f"at threshold {detector.threshold.reject:.4f}: {result.false_rejects:.2%} of good parts "
            f"rejected (asked for at most {asked:.2%} on average: {low} to {high} of {good}, 95 %)"
        )
    if result.escapes is not None:
        progress.say(f"{result.escapes:.2%} of defective parts passed")
    progress.say(f"scores of every picture: {folder / 'scores.csv'}")
