"""The path from pictures to scores and maps."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.backbones.memory import count_module_bytes
from flows.fastflow.backbones.recorded import FrozenBackbone
from flows.fastflow.config import Geometry, ScoreRule
from flows.fastflow.engines.engine import Engine, pick_engine
from flows.fastflow.imaging.blending import TileBlender
from flows.fastflow.imaging.geometry import PreparedImage, TileLayout, compute_layout
from flows.fastflow.imaging.region_masks import RegionMasks, masks_per_image, require_usable_masks
from flows.fastflow.inference.scored_image import ScoredImage, build_scored_images, feature_statistics
from flows.fastflow.manifest import Precision
from flows.fastflow.model.fused import Energies
from flows.fastflow.model.head import Head
from flows.fastflow.scoring.cpu_scoring import PixelPlanes, combine_scales, image_part, score_planes
from flows.fastflow.scoring.score import anomaly_map, image_parts, image_score, pixel_energies

# Of the tiles of a picture that are computed together: memory does not grow with the picture.
_CHUNK_PIXELS = 2**20
_NOT_NUMBERS: Final = "the model's energies of a picture are not numbers"


class _Found(NamedTuple):
    """What a head finds in tiles.

    Attributes:
        pixels: (N, 2 S, height, width), see `score.pixel_energies`.
        image: (N, S'), see `fused.Energies`.
        moments: (N, S, 2), of each tile's map at each scale the mean, and the mean of the square.
    """

    pixels: Tensor
    image: Tensor
    moments: Tensor


class NotNumbersError(ValueError):
    """What a head gives for an image are no numbers: the model is damaged."""


class Scorer:
    """Pictures to scores and maps: the part of a detector that needs no calibration.

    Args:
        extractor: the frozen backbone; may be shared.
        head: the category's head, on the same device.
        input_size: (height, width) of what the backbone takes.
        rule: how the image score is taken.
        geometry: how pictures are brought to the input size.
        engine: what computes backbone, heads and pixels; by default torch, in float32. Of another precision
            scores are others, and need a calibration of their own.

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
        self._running = self.engine.head(head)
        self._pixels = self.engine.pixels(rule, input_size)

    def with_engine(self, engine: Engine) -> "Scorer":
        """The same model, computed by another engine."""
        return Scorer(self.extractor, self.head, self.input_size, self.rule, self.geometry, engine)

    @property
    def head(self) -> Head:
        """The head in the form in which it was fitted.

        Raises:
            ValueError: it was let go.
        """
        if self._head is None:
            raise ValueError("the head was let go; load the model again")
        return self._head

    @property
    def precision(self) -> Precision:
        """Whose calibration counts for the scores."""
        return self.engine.precision

    @property
    def nbytes(self) -> int:
        """Memory of the head, in bytes, at most; without the shared backbone."""
        fitted = 0 if self._head is None else count_module_bytes(self._head)
        return fitted + self._running.nbytes

    @property
    def backbone_nbytes(self) -> int:
        """Memory of the backbone's weights, in bytes; all scorers with the same extractor share them."""
        return self._backbone.nbytes

    @property
    def chunk(self) -> int:
        """Tiles of a picture that are computed together, at most."""
        return max(1, _CHUNK_PIXELS // math.prod(self.input_size))

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Let the engine prepare for first batches; it takes long for the first model of its shape.

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
                self._score_whole(energies, [None] * n)

    def free_training_head(self) -> None:
        """Keep of the head what computes, and not the form in which it was fitted, half of its memory.

        Nothing else can be made of it from then on.
        """
        self._head = None

    def specialise(self) -> None:
        """Let the engine compile the rest, while it serves, see `engines.RunningHead.specialise`."""
        scales = zip(self.extractor.channels, self.extractor.strides, strict=True)
        sizes = [(c, *(-(-side // stride) for side in self.input_size)) for c, stride in scales]
        self._running.specialise(sizes)

    def score(self, images: Sequence[NDArray[np.uint8]]) -> list[ScoredImage]:
        """Score pictures, (H, W, 3) uint8 RGB of any sizes, as one batch."""
        return self.score_prepared([self.prepare(image) for image in images])

    def layout(self, image_size: tuple[int, int]) -> TileLayout:
        """Where a picture of (H, W) pixels lies before the model, and how large its map is."""
        return compute_layout(self.geometry, image_size, self.input_size, self.extractor.strides)

    def prepare(self, image: NDArray[np.uint8]) -> PreparedImage:
        """Bring a picture (H, W, 3) to where the model takes it from."""
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
        """Score prepared pictures: those of many tiles one by one, a chunk at a time; the others at once.

        Args:
            prepared: from `prepare`.
            regions: as in `score_features`.

        Raises:
            ValueError: as `score_features`.
        """
        masks = masks_per_image(regions, len(prepared))
        found: dict[int, ScoredImage] = {}
        together = []
        for i, (picture, mask) in enumerate(zip(prepared, masks, strict=True)):
            if len(picture.layout) > self.chunk:
                found[i] = self._score_in_chunks(picture, mask)
            else:
                together.append(i)
        if together:
            maps = self.features([tile for i in together for tile in prepared[i].tiles()])
            layouts = [prepared[i].layout for i in together]
            scored = self.score_features(maps, [masks[i] for i in together], layouts)
            found.update(zip(together, scored, strict=True))
        return [found[i] for i in range(len(prepared))]

    @torch.inference_mode()
    def score_features(
        self,
        maps: Sequence[Tensor],
        regions: RegionMasks | None = None,
        layouts: Sequence[TileLayout] | None = None,
    ) -> list[ScoredImage]:
        """Score pictures by what the backbone made of them.

        Args:
            maps: per scale (N, C_i, H_i, W_i), from `features`; N tiles, picture after picture.
            regions: of interest, one for each picture, of the size of its map. A region can only lower a
                score, and the map outside it is 0.
            layouts: of the pictures; by default every tile is a whole picture.

        Raises:
            ValueError: maps are of other sizes than positions have means for, the layouts have not N tiles
                together, there are not as many regions as pictures, or one has another shape or no pixel.
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
            raise ValueError(f"Scorer expected {ends[-1]} tiles of {len(layouts)} pictures; got {n}")
        masks = masks_per_image(regions, len(layouts))
        energies = self._energies(maps)
        if all(layout.is_whole for layout in layouts):
            return self._score_whole(energies, masks)
        found = self._found(energies)
        finished = []
        for (start, end), layout, mask in zip(pairwise(ends), layouts, masks, strict=True):
            blend = TileBlender(layout, found.pixels.shape[1], found.pixels.device)
            blend.add(found.pixels[start:end])
            tiles = (found.image[start:end], found.moments[start:end])
            finished += self._finish(_of_tiles(blend, *tiles), layout.size, [mask])
        return finished

    @torch.inference_mode()
    def _score_in_chunks(self, picture: PreparedImage, mask: NDArray[np.bool_] | None) -> ScoredImage:
        layout, tiles = picture.layout, picture.tiles()
        blend = TileBlender(layout, 2 * len(self.extractor.channels), self.extractor.device)
        wholes, moments = [], []
        for start in range(0, len(tiles), self.chunk):
            found = self._found(self._energies(self.features(tiles[start : start + self.chunk])))
            blend.add(found.pixels)
            wholes.append(found.image)
            moments.append(found.moments)
        of_tiles = _of_tiles(blend, torch.cat(wholes), torch.cat(moments))
        [scored] = self._finish(of_tiles, layout.size, [mask])
        return scored

    def _energies(self, maps: Sequence[Tensor]) -> Energies:
        found = tuple((m.shape[2], m.shape[3]) for m in maps)
        # How many there must be, the normaliser says.
        if self._sizes is not None and any(a != b for a, b in zip(found, self._sizes, strict=False)):
            raise ValueError(
                f"expected feature maps of {self._sizes}, whose positions have means; got {found}"
            )
        energies = self._running(maps)
        # A minimum over scales may swallow what is no number, and the part would pass.
        if energies.image.device.type == "cpu" and any(
            bool(e.isnan().any()) for e in (*energies.flow, *energies.gaussian)
        ):
            raise NotNumbersError(_NOT_NUMBERS)
        return energies

    def _score_whole(self, energies: Energies, masks: RegionMasks) -> list[ScoredImage]:
        """Scores and maps of N pictures that are an input each."""
        size = self.input_size
        if energies.image.device.type != "cpu":
            return self._finish(self._found(energies), size, masks)
        require_usable_masks(masks, size)
        finished = _finished(self._pixels(energies), energies.image, self.rule, masks)
        wholes = _wholes(energies.image, self.rule, masks)
        return build_scored_images(finished, wholes, feature_statistics(energies.mean, energies.square))

    def _found(self, energies: Energies) -> _Found:
        return _Found(
            pixel_energies(energies.flow, energies.gaussian, self.rule, self.input_size),
            energies.image,
            torch.stack((energies.mean, energies.square), 2),
        )

    def _finish(self, found: _Found, size: tuple[int, int], masks: RegionMasks) -> list[ScoredImage]:
        """Scores and maps of N pictures with maps of one size, (height, width)."""
        require_usable_masks(masks, size)
        rule = self.rule_for(size)
        if found.pixels.device.type == "cpu":
            pixels = (combine_scales(list(planes), rule) for planes in found.pixels.numpy())
            finished = _finished(pixels, found.image, rule, masks)
        else:
            finished = _finished_there(found, rule, self._stack(masks, size))
        wholes = _wholes(found.image, rule, masks)
        return build_scored_images(finished, wholes, feature_statistics(*found.moments.unbind(2)))

    def rule_for(self, size: tuple[int, int]) -> ScoreRule:
        """The rule for a picture with a map of a size (height, width).

        It averages no more pixels than of a single tile, or a large picture would dilute a small defect.
        """
        share = math.prod(self.input_size) / math.prod(size)
        if share >= 1:
            return self.rule
        return self.rule.model_copy(update={"top_fraction": self.rule.top_fraction * share})

    def _stack(self, regions: RegionMasks, size: tuple[int, int]) -> Tensor | None:
        """The regions as one mask (n, height, width), or None where all is of interest."""
        if all(region is None for region in regions):
            return None
        everything = np.ones(size, np.bool_)
        masks = np.stack([everything if region is None else region for region in regions])
        return torch.from_numpy(masks).to(self.extractor.device)


def _finished_there(
    found: _Found, rule: ScoreRule, inside: Tensor | None
) -> list[tuple[float, NDArray[np.float32]]]:
    """Scores and maps, computed where the energies are, as on a GPU.

    Raises:
        NotNumbersError: one has what is no number. Asked of the energies, the GPU would be waited for twice.
    """
    flow, both = found.pixels.chunk(2, 1)
    scores = image_score(flow, rule, found.image, inside).cpu().numpy()
    maps = anomaly_map(both, rule, inside).cpu().numpy()
    if np.isnan(scores).any() or np.isnan(maps).any():
        raise NotNumbersError(_NOT_NUMBERS)
    return list(zip(scores.tolist(), maps, strict=True))


def _finished(
    pixels: Iterable[PixelPlanes], pictures: Tensor, rule: ScoreRule, masks: RegionMasks
) -> list[tuple[float, NDArray[np.float32]]]:
    found = zip(pixels, pictures.numpy(), masks, strict=True)
    return [score_planes(one, picture, rule, mask) for one, picture, mask in found]


def _wholes(pictures: Tensor, rule: ScoreRule, masks: RegionMasks) -> list[float | None]:
    """What whole pictures add to their scores; None where a region leaves it out."""
    # To the last bit as in the score, from which it is taken again.
    if pictures.device.type == "cpu":
        wholes = [image_part(picture, rule) for picture in pictures.numpy()]
    else:
        wholes = image_parts(pictures, rule).tolist()
    return [w if mask is None or mask.all() else None for w, mask in zip(wholes, masks, strict=True)]


def _of_tiles(blend: TileBlender, picture: Tensor, moments: Tensor) -> _Found:
    """What was found in a picture's tiles, as of one: the strangest tile speaks for the whole picture."""
    return _Found(blend.result(), picture.amax(0, keepdim=True), moments.mean(0, keepdim=True))
