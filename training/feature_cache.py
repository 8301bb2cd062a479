"""Feature maps of the training pictures, computed once and kept on disk.

The backbone is frozen, so its output never changes: an epoch costs the flows alone, and a second run with
another seed or other flow settings starts at once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from flows.fastflow.features import FeatureExtractor
from flows.fastflow.geometry import Geometry
from training.augment import AugmentError, Variant
from training.cache_folder import CacheFolder
from training.pinned import Pinned, read
from training.versions import library_versions

Features = list[NDArray[np.float32]]


@dataclass(frozen=True)
class View:
    """What features are computed of: a tile of a picture, as it is or changed.

    Attributes:
        path: the picture's file.
        sha256: of the file: the cache is keyed by content, not by name or time.
        picture: number of the picture among those of the run.
        variant: how it is changed, or None.
        tile: number of the tile; 0, the only one, of a picture that is not tiled.
    """

    path: Path
    sha256: str
    picture: int
    variant: Variant | None = None
    tile: int = 0


class FeatureCache:
    """The features of some views by one backbone, on disk or to be computed.

    Args:
        folder: where caches lie.
        extractor: the frozen backbone.
        views: the tiles, those of a picture in a row.
        input_size: (height, width) of what the backbone takes.
        batch_size: tiles per pass of the backbone.
        geometry: how pictures are brought to the input size.
        sample_bits: of the pictures, see `images.decode`.
    """

    def __init__(
        self,
        folder: CacheFolder,
        extractor: FeatureExtractor,
        views: Sequence[View],
        *,
        input_size: tuple[int, int],
        batch_size: int,
        geometry: Geometry,
        sample_bits: int,
    ) -> None:
        self.folder = folder
        self.extractor = extractor
        self.views = views
        self.input_size = input_size
        self.batch_size = batch_size
        self.geometry = geometry
        self.sample_bits = sample_bits
        self._tiles: tuple[View, Sequence[NDArray[np.uint8]]] | None = None
        # With all that moves the last bits of a feature: a run is deterministic, cache or no cache.
        computing = [str(extractor.device), torch.get_num_threads(), batch_size, library_versions()]
        pictures = [[v.sha256, v.tile, asdict(v.variant) if v.variant else None] for v in views]
        key = [
            extractor.name,
            extractor.weights_sha256,
            extractor.out_indices,
            input_size,
            geometry.model_dump(),
            sample_bits,
            computing,
            pictures,
        ]
        self.name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]

    @property
    def there(self) -> bool:
        """Whether they have been computed, and are whole: a failing disk may have taken some of a file."""
        return self.folder.has(self.name) and self._is_whole(self.folder.folder / self.name)

    def compute(self, start: int) -> Features:
        """The features of one batch of views, the first of which is number `start`.

        Returns:
            Per scale (N, C_i, H_i, W_i) float32.

        Raises:
            ImageError, AugmentError: a picture cannot be read or changed; it is named.
            DatasetError: its file is gone, or is another than the views say; it is named.
        """
        views = self.views[start : start + self.batch_size]
        images = np.stack([self._pixels(view) for view in views])
        maps = self.extractor(torch.from_numpy(images).to(self.extractor.device))
        return [m.cpu().contiguous().numpy() for m in maps]

    def _pixels(self, view: View) -> NDArray[np.uint8]:
        """A view (height, width, 3); a picture is read once for its tiles in a row."""
        whole = replace(view, tile=0)
        if self._tiles is None or self._tiles[0] != whole:
            image = self._read(view)
            layout = self.geometry.layout(image.shape[:2], self.input_size, self.extractor.strides)
            self._tiles = whole, layout.prepare(image).tiles()
        return self._tiles[1][view.tile]

    def _read(self, view: View) -> NDArray[np.uint8]:
        # Compared with its hash: features of another picture would lie under it until they are evicted.
        image = read(Pinned(view.path, view.sha256), self.sample_bits)
        if view.variant is None:
            return image
        try:
            return view.variant.apply(image)
        except AugmentError as error:
            raise AugmentError(f"{view.path}: {error}") from error

    def nbytes(self, some: Features) -> int:
        """What they all take on disk, by the features of some views."""
        return sum(int(array[0].nbytes) for array in some) * len(self.views)

    @contextmanager
    def features(self, advance: Callable[[int], None], first: Features | None = None) -> Iterator[Features]:
        """The features of all views, from the cache or computed into it. Meanwhile they are not removed.

        Args:
            advance: called with the number of views done since the last call.
            first: the features of the first batch, where they have been computed already.

        Returns:
            Per scale (N, C_i, H_i, W_i) float32, memory-mapped and read-only, in the order of the views.

        Raises:
            ImageError, AugmentError, DatasetError: as `compute`.
            CacheError: there is no room for them.
        """
        computed = False
        needed = 0
        if not self.there:
            self.folder.discard(self.name)  # what is left of a damaged one
            first = first or self.compute(0)
            needed = self.nbytes(first)

        def make(folder: Path) -> None:
            nonlocal computed
            self._write(folder, first or self.compute(0), advance)
            computed = True

        with self.folder.use(self.name, needed, make) as path:
            if not computed:
                advance(len(self.views))
            yield self._mapped(path)

    def _mapped(self, path: Path) -> Features:
        return [np.load(path / f"scale_{i}.npy", mmap_mode="r") for i in range(len(self.extractor.channels))]

    def _is_whole(self, path: Path) -> bool:
        try:
            shapes = [array.shape[:2] for array in self._mapped(path)]
        except (OSError, ValueError, EOFError):  # gone, or shorter than it says of itself
            return False
        return shapes == [(len(self.views), channels) for channels in self.extractor.channels]

    def _write(self, folder: Path, first: Features, advance: Callable[[int], None]) -> None:
        # Written, not mapped: on a full disk a write fails with an error, a mapped page with a signal.
        with ExitStack() as stack:
            files = [stack.enter_context((folder / f"scale_{i}.npy").open("wb")) for i in range(len(first))]
            for file, array in zip(files, first, strict=True):
                write_header(file, array.dtype, (len(self.views), *array.shape[1:]))
            for start in range(0, len(self.views), self.batch_size):
                batch = self.compute(start) if start else first
                for file, array in zip(files, batch, strict=True):
                    file.write(np.ascontiguousarray(array, np.float32).data)
                advance(len(batch[0]))
            for file in files:
                # Before the folder gets its name: a power cut must not leave a whole cache of zeros.
                file.flush()
                os.fsync(file.fileno())


def write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Begin a .npy file, whose values follow in C order."""
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
