"""Reports for people: one HTML file for a run and one over categories, each complete in itself."""

from training.report.index import write_index
from training.report.run_report import write_report

__all__ = ["write_index", "write_report"]
