"""The page over categories: one line for each, the means, and links to the reports."""

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
_SHOWN = {
    "category",
    "version",
    "good",
    "defective",
    "target_fpr",
    "certified",
}  # of all times


def write_index(out: Path) -> Path:
    """Write index.html over the latest evaluation of every category in a folder.

    Args:
        out: holds CATEGORY/VERSION/summary.json and report.html, as `flowgauge evaluate` leaves them.

    Returns:
        The file.
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
    """What each evaluation says of itself, with a link to its report; other files are passed over."""
    for file in out.glob("*/*/summary.json"):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if not isinstance(found, dict) or not found.keys() >= _SHOWN:
            continue
        report = file.with_name(REPORT)
        link = "/".join(quote(part) for part in report.relative_to(out).parts) if report.is_file() else None
        # Other editions measure other figures.
        yield {**dict.fromkeys(AVERAGED), "evaluated": "", **found, "link": link}
