"""Settings without effect in a run.

They are reported, not refused: a general setting may apply to another category, and a bundle's complete YAML
must load again.
"""

from training.config.augmentation import AugmentConfig
from training.config.geometry_config import GeometryConfig
from training.config.run_config import FitConfig, RunConfig


def unused_settings(config: RunConfig) -> list[str]:
    """Describe each setting that differs from its default and has no effect in this run."""
    fit, augment = config.fit, config.augment
    geometry, normalisation = config.geometry, config.normalisation
    lines = []
    if geometry.fit != "tile" and fit.tiles != FitConfig().tiles:
        lines.append(f"fit.tiles is {fit.tiles}, but geometry.fit is not tile")
    is_chosen = geometry.fit == "auto" and config.input_size is None
    if not is_chosen and geometry.max_tiles != GeometryConfig().max_tiles:
        lines.append(f"geometry.max_tiles is {geometry.max_tiles}, but input_size or geometry.fit is set")
    if fit.epochs is not None and fit.steps != FitConfig().steps:
        lines.append(f"fit.steps is {fit.steps}, but fit.epochs is {fit.epochs}, not null")
    if normalisation.pooling == 1 and normalisation.pooled != RunConfig().normalisation.pooled:
        lines.append(
            f"normalisation.pooled is {normalisation.pooled}, but normalisation.pooling is 1, which pools "
            "none"
        )
    if not augment.active and augment.copies != AugmentConfig().copies:
        lines.append(f"augment.copies is {augment.copies}, but augment allows no change to make them")
    return [f"{line}: it does nothing" for line in lines]
