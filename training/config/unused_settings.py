"""Settings that do nothing beside the others of a run.

They are said and not refused: what holds for all categories may be of one that has the rest, and a bundle's
complete YAML, in which every setting is written out, must load again.
"""

from training.config.augmentation import AugmentConfig
from training.config.run_config import FitConfig, RunConfig


def unused_settings(config: RunConfig) -> list[str]:
    """A line for each setting that has another value than its default, which decides nothing in this run."""
    fit, augment = config.fit, config.augment
    normalisation = config.normalisation
    lines = []
    if config.geometry.fit != "tile" and fit.tiles != FitConfig().tiles:
        lines.append(f"fit.tiles is {fit.tiles}, but geometry.fit is {config.geometry.fit}, not tile")
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
