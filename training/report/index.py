"""The page over categories: one line for each, the means, and links to the reports."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from training.report.pages import render
from training.report.run_report import REPORT
from training.summary import AVERAGED, METRICS, means

INDEX = "index.html"


def write_index(out: Path) -> Path:
    """Write index.html over the latest evaluation of every category in a folder.

    Args:
        out: holds CATEGORY/VERSION/summary.json and report.html, as `flowgauge evaluate` leaves them.

    Returns:
        The file.
    """
    latest: dict[str, dict[str, Any]] = {}
    # Versions are times, so that they sort by age.
    for file in sorted(out.glob("*/*/summary.json"), key=lambda f: f.parent.name):
        try:
            # Older evaluations measured less.
            summary = dict.fromkeys(AVERAGED) | json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue  # of an evaluation that was killed while it wrote
        report = file.with_name(REPORT)
        link = "/".join(quote(part) for part in report.relative_to(out).parts) if report.is_file() else None
        latest[summary["category"]] = {**summary, "link": link}
    rows = [latest[category] for category in sorted(latest)]
    page = render("index.html.j2", rows=rows, means=means(rows), metrics=METRICS)
    path = out / INDEX
    path.write_text(page, encoding="utf-8")
    return path
