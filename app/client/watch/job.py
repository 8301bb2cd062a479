"""Inspection of one image by the server, and classification of its failures."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...schemas.problem import ProblemDetails
from ...schemas.texts import text_fault
from ..errors import FlowGaugeError, ProblemError
from ..sync import Client
from .folder import PATTERNS, CompleteFile, printable
from .outcome import ImageOutcome

_UNDECODED: Final = ("unsupported-media-type", "undecodable-image")
# Problems of the image itself: a retry does not help.
_FINAL: Final = (*_UNDECODED, "invalid-request", "too-large", "idempotency-key-reused")
# Problems of this image that other images need not have.
_PASSING: Final = ("internal", "deadline-exceeded", "upload-stalled", "unknown-inspection", "files-lost")


class AllImagesWaitError(Exception):
    """No image can be inspected at present; the message says why."""


class ImageWaitsError(Exception):
    """One image cannot be inspected at present, others can; the message says why."""


@dataclass(frozen=True)
class WatchJob:
    """Settings of a watcher.

    Attributes:
        part: its first group is the part's id. It is searched in an image's name; if it does not match, in
            the path below the root, with slashes.
        move_to: folder for finished images; None leaves them.
        settle: seconds without a change after which a file is complete.
        overlay: also write the image with its heatmap over it.
        longest_pause: most seconds between two attempts.
    """

    root: Path
    category: str
    station: str | None = None
    part: re.Pattern[str] | None = None
    move_to: Path | None = None
    patterns: tuple[str, ...] = PATTERNS
    settle: float = 0.5
    overlay: bool = False
    longest_pause: float = 30.0

    def inspect(self, client: Client, found: CompleteFile, data: bytes, identity: str) -> ImageOutcome:
        """Inspect an image.

        Raises:
            ImageWaitsError: try this image later.
            AllImagesWaitError: no image can be inspected at present.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        part_id, name = self._part_id(found.name), found.name.rpartition("/")[2]
        # All that the server compares before it returns a kept answer.
        what = [identity, self.category, self.station, part_id, found.name, sha256]
        try:
            inspection = client.inspect(
                self.category,
                data,
                station=self.station,
                part_id=part_id,
                file_name=None if text_fault(name) else name,
                inline=["overlay"] if self.overlay else [],
                idempotency_key=f"watch-{hashlib.sha256(json.dumps(what).encode()).hexdigest()}",
            )
        except ProblemError as error:
            if error.type in _FINAL:
                return ImageOutcome(found, sha256, error.details)
            if error.type in _PASSING:
                raise ImageWaitsError(f"{found.name}: {error}") from error
            # The server is busy, the key is wrong, or the model is damaged.
            raise AllImagesWaitError(str(error)) from error
        except FlowGaugeError as error:
            try:
                client.model(self.category)
            except FlowGaugeError:  # the server is away, or something answers in its place
                raise AllImagesWaitError(str(error)) from error
            raise ImageWaitsError(f"{found.name}: {error}") from error
        overlay = base64.b64decode(inspection.inline["overlay"]) if inspection.inline else None
        return ImageOutcome(found, sha256, inspection, overlay)

    def _part_id(self, name: str) -> str | None:
        """Find the part's id in a file's name, then in its path: folders are often dates."""
        if self.part is None:
            return None
        match = self.part.search(name.rpartition("/")[2]) or self.part.search(name)
        return printable(match[1]) if match is not None and match[1] else None


def may_be_half_written(outcome: ImageOutcome) -> bool:
    """Check if an image could not be decoded: it may be incomplete."""
    return isinstance(outcome.result, ProblemDetails) and outcome.result.type in _UNDECODED
