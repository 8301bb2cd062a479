"""Settings of the score; the Gaussian's share may be derived after the fit."""

from typing import TYPE_CHECKING, Final

from pydantic import Field

from flows.fastflow.config import Geometry, ScoreRule, Scoring

if TYPE_CHECKING:
    from flows.fastflow.model.head import Head

# Measured: docs/research/model.md, "Which refinements of the map pay?"
_POSITION_FACTOR: Final = 0.5
_MIN_SHARE: Final = 0.2
_PADDED_SHARE: Final = 0.25


class ScoreConfig(Scoring):
    """Settings that turn energies into a score and a map."""

    gaussian: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the Gaussian in the map, the flow has the rest; null derives it from the "
        "features, from 0.2 (textures) to 0.5 (parts in a fixed place), and 0.25 with geometry.fit `pad`",
    )

    def rule(self, head: "Head", geometry: Geometry) -> ScoreRule:
        """Build the score rule of a fitted head.

        The Gaussian models the usual features of each position. If parts stand in the same place, that
        separates most defects; otherwise the flow does. Padding looks the same in every image and carries no
        information, so with it the share is 0.25.
        """
        share = self.gaussian
        if share is None and geometry.fit == "pad":
            share = _PADDED_SHARE
        elif share is None:
            share = max(_MIN_SHARE, _POSITION_FACTOR * head.gaussian.position_share())
        return ScoreRule(**self.model_dump(exclude={"gaussian"}), gaussian=share)
