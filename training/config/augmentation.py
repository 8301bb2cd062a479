"""Settings of the changed copies of training images."""

from pydantic import BaseModel, ConfigDict, Field


class AugmentConfig(BaseModel):
    """Settings of changes that keep a good part good."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    hflip: bool = Field(default=False, description="mirror left and right")
    vflip: bool = Field(default=False, description="mirror top and bottom")
    right_angles: bool = Field(default=False, description="turn square images by 90, 180 and 270 degrees")
    degrees: float = Field(
        default=0, ge=0, le=45, description="largest turn in degrees, either way; the border is reflected"
    )
    brightness: float = Field(
        default=0, ge=0, le=0.5, description="largest change of brightness, as a share of white"
    )
    contrast: float = Field(default=0, ge=0, le=0.5, description="largest relative change of contrast")
    copies: int = Field(default=4, ge=1, le=64, description="changed copies of each image to fit")

    @property
    def active(self) -> bool:
        """True if any change is allowed."""
        return self.hflip or self.vflip or self.right_angles or self.jitters

    @property
    def jitters(self) -> bool:
        """True if changes are drawn from a continuum, so that no two copies are alike."""
        return max(self.degrees, self.brightness, self.contrast) > 0
