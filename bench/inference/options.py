"""Options that the parts of the benchmark share."""

import sys
from dataclasses import dataclass
from pathlib import Path

from bench.report import Figures


@dataclass(frozen=True)
class Options:
    """Options of the command line; `folder` keeps models, exports and logs for later runs."""

    folder: Path
    rounds: int
    seconds: float
    threads: int
    device: str
    engine: str
    anomalib: Path | None

    def our_command(self, kind: str, bundle: Path, engine: str, *files: Path) -> list[str]:
        """The command of `our_contestant`: FlowGauge or a bare backbone."""
        return [
            sys.executable, "-m", "bench.inference.our_contestant", kind, str(bundle), f"--engine={engine}",
            f"--device={self.device}", f"--threads={self.threads}", *(f"--file={file}" for file in files),
        ]  # fmt: skip

    def settings(self) -> Figures:
        """The options that figures depend on."""
        return {
            "rounds": self.rounds,
            "seconds a turn": self.seconds,
            "threads": self.threads,
            "device": self.device,
        }
