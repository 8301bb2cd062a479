"""What is to be done with the pictures of a folder, and who hears of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .folder import PATTERNS
from .outcome import Outcome


@dataclass(frozen=True)
class Job:
    """What is to be done with the pictures of a folder.

    Attributes:
        root: the folder.
        category: which model.
        station: where they come from.
        part: its first group is the part's id. It is searched in a picture's name; where it does not match,
            in the path below the root, with slashes.
        move_to: the folder for pictures that are dealt with; None leaves them.
        patterns: of names.
        settle: seconds for which a file must not change before it counts as whole.
        overlay: whether to keep the picture with its heatmap over it too.
    """

    root: Path
    category: str
    station: str | None = None
    part: re.Pattern[str] | None = None
    move_to: Path | None = None
    patterns: tuple[str, ...] = PATTERNS
    settle: float = 0.5
    overlay: bool = False


class Listener(Protocol):
    """Whom the watcher tells what goes on."""

    def dealt_with(self, outcome: Outcome) -> None:
        """A picture was inspected or set aside."""

    def waits(self, reason: str) -> None:
        """Nothing goes on, or not with a picture; it is tried again."""

    def warns(self, reason: str) -> None:
        """It goes on, but perhaps not as it is meant."""
