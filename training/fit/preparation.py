"""The inputs of a run: its settings, images, weights, device and folder."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from flows.fastflow.backbones.weights import Weights
from flows.fastflow.bundle.models_folder import BACKBONES, require_category
from flows.fastflow.config import Geometry
from flows.fastflow.engines.device import pick_device
from flows.fastflow.engines.engine import Engine, pick_engine
from flows.fastflow.imaging.image_errors import ImageError
from training.config.geometry_config import DEFAULT_INPUT, GeometryConfig, choose_batch_size, choose_input
from training.config.run_config import RunConfig
from training.data.pinned_images import PinnedImage, size_of
from training.data.training_images import TrainingImages, find_training_images
from training.features.backbone import BackboneLoader
from training.fit.run_folder import Identity, identify
from training.fit.training_loop import resolve_precision
from training.terminal.progress import Progress


@dataclass(frozen=True)
class Run:
    """The inputs that the stages of a run share.

    Attributes:
        config: the settings, with `input_size`, `geometry.fit` and `fit.batch_size` resolved.
        input_size: (height, width) of the backbone's input.
        geometry_reason: why `geometry.fit: auto` chose this input; None if it did not choose.
        runs: folder of runs and cached features.
        folder: the folder of this run, within `runs`.
    """

    config: RunConfig
    input_size: tuple[int, int]
    geometry: Geometry
    geometry_reason: str | None
    data: Path
    category: str
    images: TrainingImages
    models: Path
    runs: Path
    folder: Path
    identity: Identity
    device: torch.device
    engines: Sequence[Engine]
    weights: Weights
    backbones: BackboneLoader
    resume: bool
    progress: Progress

    @property
    def fitted_config(self) -> RunConfig:
        """The settings with `fit.precision` resolved, which reproduce the run on another machine."""
        fit = self.config.fit
        precision = resolve_precision(fit.precision, self.device)
        return self.config.model_copy(update={"fit": fit.model_copy(update={"precision": precision})})


def prepare_run(
    config: RunConfig,
    data: Path,
    category: str,
    models: Path,
    runs: Path,
    *,
    resume: bool,
    progress: Progress,
    backbones: BackboneLoader | None,
) -> Run:
    """Find images and weights, pick device and engines, and make the run's folder.

    Args and Raises: see `training.run.train`.
    """
    require_category(category)
    torch.set_num_threads(config.fit.threads)
    device = pick_device(config.device)
    engines = [pick_engine(precision, device) for precision in config.calibration.engines]
    images = find_training_images(config, data, category)
    if images.copies:
        progress.say(f"{images.copies} images are copies of others, byte for byte: left out")
    config, reason = _resolve_input(config, images.pinned)
    backbones = backbones or BackboneLoader(models / BACKBONES)
    weights = backbones.weights(config.backbone)
    parts = None if images.part_count is None else images.part_numbers.tolist()
    identity = identify(config, images.hashes, weights.sha256, device, parts)
    folder = runs / category / identity.fit[:12]
    folder.mkdir(parents=True, exist_ok=True)
    return Run(
        config=config,
        input_size=config.input_size or DEFAULT_INPUT,
        geometry=config.geometry.resolved(),
        geometry_reason=reason,
        data=data,
        category=category,
        images=images,
        models=models,
        runs=runs,
        folder=folder,
        identity=identity,
        device=device,
        engines=engines,
        weights=weights,
        backbones=backbones,
        resume=resume,
        progress=progress,
    )


def _resolve_input(config: RunConfig, images: Sequence[PinnedImage]) -> tuple[RunConfig, str | None]:
    """Replace `geometry.fit: auto` and missing sizes of input and batch; also return the reason."""
    size, reason = config.input_size or DEFAULT_INPUT, None
    resolved: dict[str, object] = {"fit": config.geometry.resolved().fit}
    if config.geometry.fit == "auto" and config.input_size is None:
        # `max_tiles` does its work here: the same input, if given, makes the same run.
        resolved["max_tiles"] = GeometryConfig().max_tiles
        sizes = []
        for image in images:
            with suppress(ImageError):  # the data check names all damaged images
                sizes.append(size_of(image))
        if sizes:
            size, reason = choose_input(sizes, config.geometry.max_tiles)
    geometry = config.geometry.model_copy(update=resolved)
    fit = config.fit.model_copy(update={"batch_size": config.fit.batch_size or choose_batch_size(size)})
    return config.model_copy(update={"input_size": size, "geometry": geometry, "fit": fit}), reason
