"""Settings of the changed copies of training images."""

from pydantic import BaseModel, ConfigDict, Field


class AugmentConfig(BaseModel):
    """Changes that leave a good part's image a good part's image."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    hflip: bool = Field(default=False, description="mirror left and right")
    vflip: bool = Field(default=False, description="mirror top and bottom")
    right_angles: bool = Field(default=False, description="turn square pictures by 90, 180, 270 degrees")
    degrees: float = Field(default=0, ge=0, le=45, description="turn by up to so much either way")
    brightness: float = Field(default=0, ge=0, le=0.5, description="add up to this share of white, or less")
    contrast: float = Field(default=0, ge=0, le=0.5, description="contrast times 1 - this ... 1 + this")
    copies: int = Field(default=4, ge=1, le=64, description="changed copies of each picture that is fitted")

    @property
    def active(self) -> bool:
        """Whether anything at all is allowed."""
        return self.hflip or self.vflip or self.right_angles or self.jitters

    @property
    def jitters(self) -> bool:
        """Whether a change is drawn from a continuum, so that no two copies are alike."""
        return max(self.degrees, self.brightness, self.contrast) > 0
