"""The files of a version's report, which its bundle holds."""

from typing import Final

from flows.fastflow.manifest import Manifest

REPORT: Final = "report/"
MAX_REPORT_BYTES: Final = 16 * 2**20


def report_files(manifest: Manifest) -> list[str]:
    """List the names of the files, sorted."""
    names = (name.removeprefix(REPORT) for name in manifest.files if name.startswith(REPORT))
    return sorted(name for name in names if "/" not in name)
