"""Scorer: from images to scores and maps, without a calibration."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.backbones.memory import count_module_bytes
from flows.fastflow.backbones.recorded import FrozenBackbone
from flows.fastflow.config import Geometry, ScoreRule
from flows.fastflow.engines.engine import Engine, pick_engine
from flows.fastflow.imaging.geometry import PreparedImage, TileLayout, compute_layout
from flows.fastflow.imaging.region_masks import RegionMasks, masks_per_image
from flows.fastflow.inference.scored_image import ScoredImage
from flows.fastflow.inference.tile_outputs import (
    NOT_NUMBERS,
    NotNumbersError,
    TileMerger,
    TileOutputs,
    score_images,
)
from flows.fastflow.manifest import Precision
from flows.fastflow.model.fused import Energies
from flows.fastflow.model.head import Head
from flows.fastflow.scoring.cpu_scoring import PixelPlanes
from flows.fastflow.scoring.map_and_score import pixel_energies

# Pixels of the tiles of an image that are computed together: memory does not grow with the image.
_CHUNK_PIXELS = 2**20


class Scorer:
    """Part of a detector that needs no calibration: images to scores and maps.

    Args:
        extractor: the frozen backbone; may be shared.
        head: the category's head, on the same device.
        input_size: (height, width) of the backbone's input.
        geometry: fit of images to the input size.
        engine: engine for backbone, head and pixels, by default torch in float32. Scores of another
            precision differ, and need a calibration of their own.
        describes: also describe the images, see `ScoredImage.description`.

    Raises:
        ValueError: the geometry's margins leave too little of the input.
    """

    def __init__(
        self,
        extractor: FrozenBackbone,
        head: Head,
        input_size: tuple[int, int],
        rule: ScoreRule,
        geometry: Geometry,
        engine: Engine | None = None,
        *,
        describes: bool = False,
    ) -> None:
        geometry.require_room(input_size)
        self.extractor = extractor
        self._head: Head | None = head.eval().requires_grad_(False)
        self.input_size = input_size
        self.rule = rule
        self.geometry = geometry
        self.engine = engine or pick_engine("float32", extractor.device)
        self._backbone = self.engine.backbone(extractor, input_size)
        self._sizes = head.gaussian.sizes
        self._learned = head.learned
        self._running = self.engine.head(head, describes=describes)
        self._pixels = self.engine.pixels(rule, input_size)

    def with_engine(self, engine: Engine) -> "Scorer":
        """Create a scorer of the same model with another engine."""
        return Scorer(self.extractor, self.head, self.input_size, self.rule, self.geometry, engine)

    def describing(self) -> "Scorer":
        """Create a scorer of the same model and engine that also describes images."""
        parts = (self.extractor, self.head, self.input_size, self.rule, self.geometry, self.engine)
        return Scorer(*parts, describes=True)

    @property
    def head(self) -> Head:
        """Head in its training form.

        Raises:
            ValueError: `free_training_head` was called.
        """
        if self._head is None:
            raise ValueError("the training form of the head was freed; load the model again")
        return self._head

    @property
    def precision(self) -> Precision:
        """Precision whose calibration applies to the scores."""
        return self.engine.precision

    @property
    def nbytes(self) -> int:
        """Upper bound of the head's memory, in bytes, without the shared backbone."""
        training_form = 0 if self._head is None else count_module_bytes(self._head)
        return training_form + self._running.nbytes

    @property
    def backbone_nbytes(self) -> int:
        """Memory of the backbone's weights, in bytes, shared by all scorers with the same extractor."""
        return self._backbone.nbytes

    @property
    def chunk(self) -> int:
        """Maximum number of tiles of an image that are computed together."""
        return max(1, _CHUNK_PIXELS // math.prod(self.input_size))

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Prepare the engine for the first batches, which takes long for the first model of its shape.

        Raises:
            NotNumbersError: the model's energies are not numbers.
        """
        image = np.random.default_rng(0).integers(0, 256, (*self.input_size, 3), np.uint8)
        for n in self._backbone.batches:
            maps = self.features([image] * n)
        is_whole = self.layout(self.input_size).is_whole
        for n in self.engine.batches:
            energies = self._energies([m[:1].expand(n, *m.shape[1:]) for m in maps])
            if is_whole:
                self._score_outputs(self._outputs(energies, whole=True), self.input_size, [None] * n)

    def free_training_head(self) -> None:
        """Free the training form of the head, half of its memory; inference goes on."""
        self._head = None

    def specialise(self) -> None:
        """Compile the rest in the engine while it serves, see `engine.HeadRunner.specialise`."""
        scales = zip(self.extractor.channels, self.extractor.strides, strict=True)
        sizes = [(c, *(-(-side // stride) for side in self.input_size)) for c, stride in scales]
        self._running.specialise(sizes)

    def score(self, images: Sequence[NDArray[np.uint8]]) -> list[ScoredImage]:
        """Score images, (H, W, 3) uint8 RGB of any sizes, as one batch."""
        return self.score_prepared([self.prepare(image) for image in images])

    def layout(self, image_size: tuple[int, int]) -> TileLayout:
        """Compute the layout of an image of (H, W) pixels."""
        return compute_layout(self.geometry, image_size, self.input_size, self.extractor.strides)

    def prepare(self, image: NDArray[np.uint8]) -> PreparedImage:
        """Scale and pad an image (H, W, 3) for the model."""
        return self.layout(image.shape[:2]).prepare(image)

    def features(self, tiles: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Run the backbone over tiles: per scale (N, C_i, H_i, W_i), on the model's device.

        Tiles are (height, width, 3) uint8 of the input size, see `PreparedImage.tiles`. All heads with
        the same extractor, input size and precision share the maps.
        """
        return self._backbone(torch.from_numpy(np.stack(tiles)))

    def score_prepared(
        self, prepared: Sequence[PreparedImage], regions: RegionMasks | None = None
    ) -> list[ScoredImage]:
        """Score prepared images as one batch; those of many tiles one by one, in chunks.

        Args:
            prepared: images from `prepare`.
            regions: see `score_features`.

        Raises:
            ValueError: see `score_features`.
        """
        masks = masks_per_image(regions, len(prepared))
        scored: dict[int, ScoredImage] = {}
        batch = []
        for i, (image, mask) in enumerate(zip(prepared, masks, strict=True)):
            if len(image.layout) > self.chunk:
                scored[i] = self._score_in_chunks(image, mask)
            else:
                batch.append(i)
        if batch:
            maps = self.features([tile for i in batch for tile in prepared[i].tiles()])
            layouts = [prepared[i].layout for i in batch]
            results = self.score_features(maps, [masks[i] for i in batch], layouts)
            scored.update(zip(batch, results, strict=True))
        return [scored[i] for i in range(len(prepared))]

    @torch.inference_mode()
    def score_features(
        self,
        maps: Sequence[Tensor],
        regions: RegionMasks | None = None,
        layouts: Sequence[TileLayout] | None = None,
    ) -> list[ScoredImage]:
        """Score images from the backbone's maps.

        Args:
            maps: per scale (N, C_i, H_i, W_i), from `features`; N tiles, image after image.
            regions: masks of the regions of interest, one per image, of the size of its map. A region can
                only lower a score, and the map outside it is 0.
            layouts: layouts of the images; by default every tile is a whole image.

        Raises:
            ValueError: the maps have other sizes than the means of positions, the layouts do not have N
                tiles together, or there is not a usable mask or None for each image.
        """
        n = len(maps[0])
        if layouts is None:
            whole = TileLayout(
                size=self.input_size,
                before=(0, 0),
                tops=(0,),
                lefts=(0,),
                tile=self.input_size,
                shrink=self.geometry.shrink,
            )
            layouts = [whole] * n
        ends = np.cumsum([0, *map(len, layouts)]).tolist()
        if ends[-1] != n:
            raise ValueError(f"Scorer expected {ends[-1]} tiles of {len(layouts)} images; got {n}")
        masks = masks_per_image(regions, len(layouts))
        energies = self._energies(maps)
        if all(layout.is_whole for layout in layouts):
            return self._score_outputs(self._outputs(energies, whole=True), self.input_size, masks)
        outputs = self._outputs(energies)
        scored = []
        for (start, end), layout, mask in zip(pairwise(ends), layouts, masks, strict=True):
            merger = TileMerger(layout, self.extractor.channels, outputs.image.device)
            merger.add(outputs, slice(start, end))
            scored += self._score_outputs(merger.result(), layout.size, [mask])
        return scored

    @torch.inference_mode()
    def _score_in_chunks(self, prepared: PreparedImage, mask: NDArray[np.bool_] | None) -> ScoredImage:
        layout, tiles = prepared.layout, prepared.tiles()
        merger = TileMerger(layout, self.extractor.channels, self.extractor.device)
        for start in range(0, len(tiles), self.chunk):
            merger.add(self._outputs(self._energies(self.features(tiles[start : start + self.chunk]))))
        [scored] = self._score_outputs(merger.result(), layout.size, [mask])
        return scored

    def _energies(self, maps: Sequence[Tensor]) -> Energies:
        sizes = tuple((m.shape[2], m.shape[3]) for m in maps)
        # The normaliser checks the number of maps.
        if self._sizes is not None and any(a != b for a, b in zip(sizes, self._sizes, strict=False)):
            raise ValueError(
                f"expected feature maps of {self._sizes}, the sizes of the positions' means; got {sizes}"
            )
        energies = self._running(maps)
        # A minimum over scales may hide NaN, and the part would pass.
        if energies.image.device.type == "cpu" and any(
            bool(e.isnan().any()) for e in (*energies.flow, *energies.gaussian)
        ):
            raise NotNumbersError(NOT_NUMBERS)
        return energies

    def _outputs(self, energies: Energies, *, whole: bool = False) -> TileOutputs:
        """Compute the outputs of tiles, or of images that are one input each."""
        if whole and energies.image.device.type == "cpu":
            pixels: Tensor | Iterable[PixelPlanes] = self._pixels(energies)
        else:
            pixels = pixel_energies(energies.flow, energies.gaussian, self.rule, self.input_size)
        moments = torch.stack((energies.mean, energies.square), 2)
        return TileOutputs(pixels, energies.image, moments, energies.description)

    def _score_outputs(
        self, outputs: TileOutputs, size: tuple[int, int], masks: RegionMasks
    ) -> list[ScoredImage]:
        """Score N images with maps of one size, (height, width)."""
        return score_images(outputs, size, self.rule_for(size), masks, self._learned)

    def rule_for(self, size: tuple[int, int]) -> ScoreRule:
        """Adapt the rule to an image with a map of a size (height, width).

        It averages at most the pixels of a single tile, so a large image does not dilute a small defect.
        """
        share = math.prod(self.input_size) / math.prod(size)
        if share >= 1:
            return self.rule
        return self.rule.model_copy(update={"top_fraction": self.rule.top_fraction * share})
