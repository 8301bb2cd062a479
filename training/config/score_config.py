"""How a run takes scores and maps from energies, of which one number is found only when all is fitted."""

from typing import Final

from pydantic import Field

from flows.fastflow.config import Geometry, ScoreRule, Scoring
from flows.fastflow.model.head import Head

# Measured: docs/research/model.md, "How much of the map is the Gaussian's?"
_OF_THE_POSITIONS: Final = 0.5
_LEAST: Final = 0.2
_PADDED: Final = 0.25


class ScoreConfig(Scoring):
    """How an image's score and its map are taken from energies."""

    gaussian: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the Gaussian in the map, the flow has the rest; null derives it from the "
        "features, from 0.2 (textures) to 0.5 (parts in a fixed place), and 0.25 with geometry.fit `pad`",
    )

    def rule(self, head: Head, geometry: Geometry) -> ScoreRule:
        """The rule of a model with this head.

        The Gaussian knows what each position usually has. Where parts stand in the same place, that is most
        of what there is to know; where they do not, it is the flow that tells them from defects. What is
        padded looks the same in every image and says nothing of it: then the share is 0.25.

        Args:
            head: fitted.
            geometry: of the model.
        """
        share = self.gaussian
        if share is None and geometry.fit == "pad":
            share = _PADDED
        elif share is None:
            share = max(_LEAST, _OF_THE_POSITIONS * head.gaussian.position_share())
        return ScoreRule(**self.model_dump(exclude={"gaussian"}), gaussian=share)
