"""The index page of evaluations: one line per category, the means, and links to the reports."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flows.fastflow.files.atomic_files import replace_file
from training.evaluation.report.pages import render
from training.evaluation.report.run_report import REPORT
from training.evaluation.summary import AVERAGED, METRICS, means

INDEX = "index.html"
_REQUIRED_KEYS = {"category", "version", "good", "defective", "target_fpr", "certified"}


def write_index(out: Path) -> Path:
    """Write index.html with the latest evaluation of every category in a folder.

    Args:
        out: folder with CATEGORY/VERSION/summary.json and report.html, written by `flowgauge evaluate`.
    """
    latest: dict[str, dict[str, Any]] = {}
    for summary in sorted(_summaries(out), key=lambda s: (s["evaluated"], s["version"])):
        latest[summary["category"]] = summary
    rows = [latest[category] for category in sorted(latest)]
    page = render("index.html.j2", rows=rows, means=means(rows), metrics=METRICS)
    path = out / INDEX
    replace_file(path, page.encode(), sync=False)
    return path


def _summaries(out: Path) -> Iterator[dict[str, Any]]:
    """Read every summary.json, with a link to its report; other files are skipped."""
    for file in out.glob("*/*/summary.json"):
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if not isinstance(summary, dict) or not summary.keys() >= _REQUIRED_KEYS:
            continue
        report = file.with_name(REPORT)
        link = "/".join(quote(part) for part in report.relative_to(out).parts) if report.is_file() else None
        # Other versions of FlowGauge may lack some metrics.
        yield {**dict.fromkeys(AVERAGED), "evaluated": "", **summary, "link": link}
