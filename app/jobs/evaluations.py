"""Evaluations of versions by jobs: the latest report, and the scores of its test images."""

import csv
from pathlib import Path
from typing import NamedTuple

from app.jobs.job_folders import JobFolders
from app.jobs.job_store import JobStore


class VersionEvaluation(NamedTuple):
    """The latest evaluation of a version: the id of its job, and its report."""

    job: str
    report: Path

    def read_scores(self) -> tuple[list[float], list[float]]:
        """Read the scores of good and of defective test images; empty if the file is missing or damaged."""
        good: list[float] = []
        defective: list[float] = []
        try:
            with self.report.with_name("scores.csv").open(newline="") as file:
                for row in csv.DictReader(file):
                    (defective if row["defect"] else good).append(float(row["score"]))
        except (OSError, ValueError, KeyError, csv.Error):
            return [], []
        return good, defective


def find_evaluation(
    store: JobStore, folders: JobFolders, category: str, version: str
) -> VersionEvaluation | None:
    for job in store.of_product(category):
        if job.state == "succeeded" and (report := folders.find_report(job, version)) is not None:
            return VersionEvaluation(job.id, report)
    return None
