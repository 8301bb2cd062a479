"""What a training run is: one YAML file describes it completely."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.fastflow.manifest import Normalisation
from flows.fastflow.model import FlowConfig
from flows.fastflow.score import ScoreRule


class ConfigError(ValueError):
    """The YAML file does not describe a run."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BackboneConfig(_Section):
    """The frozen backbone."""

    name: str = Field(default="tf_efficientnet_lite0", description="timm's name")
    out_indices: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(2, 3, 4), min_length=1, description="timm's indices of the stages, in rising order"
    )
    weights: Path | None = Field(
        default=None, description="a .safetensors or .pth file; by default found as the docs say"
    )
    batch_size: int = Field(default=8, ge=1, description="pictures per pass of the backbone")


class FitConfig(_Section):
    """How the flows are fitted."""

    epochs: int = Field(default=12, ge=1)
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0, description="peak of the one-cycle schedule")
    weight_decay: float = Field(default=1e-5, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0, description="largest norm of a gradient")
    threads: int = Field(default=2, ge=1, description="CPU threads; results depend on it slightly")


class CalibrationConfig(_Section):
    """The good pictures kept out of the fit, and the promise made with them."""

    fraction: float = Field(default=0.2, gt=0, lt=1, description="share of the good pictures")
    target_fpr: float = Field(
        default=0.01, gt=0, lt=1, description="share of good parts that may be rejected"
    )


class RunConfig(_Section):
    """A complete training run. Every field has a default that works for a first run."""

    seed: int = Field(
        default=0, ge=0, lt=2**31, description="of the split, the weights and the order of pictures"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    input_size: tuple[int, int] = Field(default=(256, 256), description="(height, width)")
    backbone: BackboneConfig = BackboneConfig()
    normalisation: Normalisation = Normalisation(mode="channel", pooling=3)
    flow: FlowConfig = FlowConfig()
    score: ScoreRule = ScoreRule()
    fit: FitConfig = FitConfig()
    calibration: CalibrationConfig = CalibrationConfig()

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        indices = self.backbone.out_indices
        # timm gives the maps in rising order, each once, whatever the order asked for.
        if indices != tuple(sorted(set(indices))):
            raise ValueError(f"backbone.out_indices must rise; got {indices}")
        if any(not 32 <= side <= 4096 for side in self.input_size):
            raise ValueError(f"input_size must lie between 32 and 4096; got {self.input_size}")
        return self


Override = Literal["seed", "device", "epochs", "threads", "target_fpr"]
_OVERRIDES: dict[Override, str | None] = {
    "seed": None,
    "device": None,
    "epochs": "fit",
    "threads": "fit",
    "target_fpr": "calibration",
}


def load_config(path: Path | None, **overrides: str | float | None) -> RunConfig:
    """Read a run's YAML, or take the defaults, and apply what the command line says.

    Args:
        path: the YAML file, or None for the defaults.
        overrides: seed, device, epochs, threads, target_fpr; None leaves the file's value.

    Raises:
        ConfigError: the file is missing, is not YAML, or has a field that is unknown or out of range.
    """
    data: dict[str, object] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(path.read_text())
        except OSError as error:
            raise ConfigError(f"cannot read the run's file {path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not YAML: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"{path} must hold a mapping of settings; got {type(loaded).__name__}")
        data = loaded or {}
    for name, section in _OVERRIDES.items():
        value = overrides.pop(name, None)
        if value is None:
            continue
        if section is None:
            data[name] = value
        else:
            inner = data.get(section)
            # A section that is no mapping stays, for the validation to complain about.
            if inner is None or isinstance(inner, dict):
                data[section] = {**(inner or {}), name: value}
    if overrides:
        raise ConfigError(f"there are no such settings: {sorted(overrides)}")
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'the run'}: {e['msg']}" for e in error.errors()]
        where = str(path) if path else "the run's settings"
        raise ConfigError("\n".join([f"{where} cannot be used:", *lines])) from error


def dump_config(config: RunConfig) -> str:
    """The complete run as YAML, as `load_config` reads it."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text
