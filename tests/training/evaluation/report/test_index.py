"""The index page: latest evaluations, working links, means of measured values."""

import json
from pathlib import Path
from typing import Any

from tests.training.evaluation.report.test_run_report import Page
from training.evaluation.report.index import write_index
from training.evaluation.summary import METRICS


def evaluated(out: Path, category: str, version: str, auroc: float, **more: Any) -> None:
    folder = out / category / version
    folder.mkdir(parents=True)
    measured = {"good": 5, "defective": 7, **dict.fromkeys(METRICS), "image_auroc": auroc, "recall": 0.5}
    promised = {"false_rejects": 0.0, "target_fpr": 0.01, "certified": True}
    summary = {"category": category, "version": version, **measured, **promised, **more}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "report.html").write_text("<p>report")


def test_every_category_is_there_with_its_latest_version(tmp_path: Path) -> None:
    evaluated(tmp_path, "bolt", "20260101T000000-aaaaaa", 0.111)
    evaluated(tmp_path, "bolt", "20260201T000000-aaaaaa", 0.9)
    evaluated(tmp_path, "anchor", "20260101T000000-bbbbbb", 0.7, certified=False)
    html = write_index(tmp_path).read_text()
    page = Page(html)
    assert page.open == []
    latest = ["anchor/20260101T000000-bbbbbb/report.html", "bolt/20260201T000000-aaaaaa/report.html"]
    assert page.sources == latest
    assert all((tmp_path / source).is_file() for source in page.sources)
    assert "0.111" not in html
    text = " ".join(page.text)
    assert "2 categories" in text
    assert "0.800" in text  # the mean
    assert "not certified: too few" in text


def test_means_are_over_categories_that_have_the_figure(tmp_path: Path) -> None:
    evaluated(tmp_path, "a", "20260101T000000-aaaaaa", 0.5, pixel_auroc=0.625)
    evaluated(tmp_path, "b", "20260101T000000-aaaaaa", 0.5)
    text = Page(write_index(tmp_path).read_text()).text
    assert text.count("0.625") == 3  # the category, the mean, and the card


def test_latest_evaluation_is_by_time_not_by_version(tmp_path: Path) -> None:
    evaluated(tmp_path, "bolt", "zline", 0.111, evaluated="2026-11-26T10:00:00+00:00")
    evaluated(tmp_path, "bolt", "20260101T000000-aaaaaa", 0.9, evaluated="2026-11-26T11:00:00+00:00")
    evaluated(tmp_path, "bolt", "zzz-of-an-older-program", 0.222)
    html = write_index(tmp_path).read_text()
    assert Page(html).sources == ["bolt/20260101T000000-aaaaaa/report.html"]
    assert "0.900" in html
    assert "20260101T000000-aaaaaa, 2026-11-26 11:00" in " ".join(Page(html).text)
