"""What the parts are run with."""

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What the parts are run with.

    Attributes:
        folder: of models, exports and logs that later runs use again.
        rounds: of turns.
        seconds: of each turn.
        threads: of every contestant and of the server.
        device: of the models: cpu or cuda.
        engine: of the server.
        anomalib: an interpreter with anomalib 2.7; None for `anomalib_environment` to find or make one.
    """

    folder: Path
    rounds: int
    seconds: float
    threads: int
    device: str
    engine: str
    anomalib: Path | None

    @property
    def logs(self) -> Path:
        """Where contestants print."""
        return self.folder / "logs"

    def ours(self, kind: str, bundle: Path, engine: str, *files: Path) -> list[str]:
        """The command of a contestant of FlowGauge, or of a bare backbone, see `subject`."""
        return [
            sys.executable, "-m", "bench.inference.subject", kind, str(bundle), f"--engine={engine}",
            f"--device={self.device}", f"--threads={self.threads}", *(f"--file={file}" for file in files),
        ]  # fmt: skip

    def figures(self) -> dict[str, object]:
        """What was asked for, for tables."""
        return {
            "rounds": self.rounds,
            "seconds a turn": self.seconds,
            "threads": self.threads,
            "device": self.device,
        }
