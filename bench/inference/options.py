"""Options shared by the parts of the benchmark."""

import sys
from dataclasses import dataclass
from pathlib import Path

from bench.report import Figures


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes:
        folder: of models, exports and logs, kept for later runs.
        rounds: of measurements.
        seconds: of each turn.
        threads: of each contestant.
        device: "cpu" or "cuda".
        engine: of the server.
        anomalib: interpreter with anomalib, if one was named.
    """

    folder: Path
    rounds: int
    seconds: float
    threads: int
    device: str
    engine: str
    anomalib: Path | None

    def contestant_command(self, kind: str, bundle: Path, engine: str, *files: Path) -> list[str]:
        """Return the command of `flowgauge_contestant`; `kind` is "flowgauge" or "backbone"."""
        return [
            sys.executable, "-m", "bench.inference.flowgauge_contestant", kind, str(bundle),
            f"--engine={engine}", f"--device={self.device}", f"--threads={self.threads}",
            *(f"--file={file}" for file in files),
        ]  # fmt: skip

    def settings(self) -> Figures:
        return {
            "rounds": self.rounds,
            "seconds a turn": self.seconds,
            "threads": self.threads,
            "device": self.device,
        }
