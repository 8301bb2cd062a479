"""The data check: :func:`check` looks at a category, a :class:`DataCheck` says what deserves a look."""

from training.datasets.check.check import check
from training.datasets.check.findings import DataCheck, Finding

__all__ = ["DataCheck", "Finding", "check"]
