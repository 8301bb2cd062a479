"""Feature maps of the training images, computed once and kept on disk.

The backbone is frozen, so its output never changes: an epoch costs the flows alone, and a second run with
another seed or other flow settings starts at once.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.config import Geometry
from flows.fastflow.files.atomic_files import remove_directory, temporary_directory
from flows.fastflow.imaging.geometry import compute_layout
from training.data.augment import AugmentError
from training.data.pinned_images import PinnedImage, read
from training.data.tiles import TrainingTile
from training.versions import library_versions

Features = list[NDArray[np.float32]]

GIB: Final = 2**30
CHECKSUMS: Final = "sha256.json"


class CacheError(ValueError):
    """There is no room for the features, in the cache or on the disk."""


@dataclass(eq=False)
class FeatureCache:
    """The features of a run's views by one backbone, on disk or to be computed.

    Attributes:
        folder: folder of the caches, a sub-folder each.
        max_bytes: size limit of all caches together; the least recently used are removed.
        views: the tiles, those of an image in succession.
        input_size: (height, width) of the backbone's input.
        batch_size: tiles per pass of the backbone.
        geometry: fit of images to the input size.
    """

    folder: Path
    max_bytes: int
    extractor: FeatureExtractor
    views: Sequence[TrainingTile]
    input_size: tuple[int, int]
    batch_size: int
    geometry: Geometry
    sample_bits: int
    _tiles: tuple[TrainingTile, Sequence[NDArray[np.uint8]]] | None = field(default=None, init=False)

    @cached_property
    def name(self) -> str:
        """Name of the sub-folder, a digest of everything that decides the features."""
        # Includes everything that affects the last bits of a feature, so that the cache changes no result.
        computing = [str(self.extractor.device), torch.get_num_threads(), self.batch_size, library_versions()]
        key = [
            self.extractor.name,
            self.extractor.weights_sha256,
            self.extractor.out_indices,
            self.input_size,
            self.geometry.model_dump(),
            self.sample_bits,
            computing,
            [[v.sha256, v.tile, asdict(v.variant) if v.variant else None] for v in self.views],
        ]
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]

    def features(self, advance: Callable[[int], None], say: Callable[[str], None]) -> Features:
        """Read the features of all views, or compute them into the cache.

        Args:
            advance: called with the number of views done since the last call.
            say: called with a line if cached features are damaged or of other images.

        Returns:
            Per scale (N, C_i, H_i, W_i) float32, memory-mapped and read-only, in the order of the views.

        Raises:
            ImageError, AugmentError: an image cannot be read or changed; it is named.
            DatasetError: its file is gone or was changed; it is named.
            CacheError: there is no room for the features.
        """
        path = self.folder / self.name
        if path.is_dir() and not self._is_sound(path):
            say(f"the cached features in {path} are damaged or of other images: they are computed again")
            remove_directory(path)
        if path.is_dir():
            advance(len(self.views))
        else:
            self._compute_all(path, advance)
        os.utime(path)  # marks the last use
        return [np.load(path / name, mmap_mode="r") for name in self._files]

    @property
    def _files(self) -> list[str]:
        return [f"scale_{i}.npy" for i in range(len(self.extractor.channels))]

    def _is_sound(self, path: Path) -> bool:
        """Tell if the files are those written for these views and this backbone."""
        try:
            return bool(json.loads((path / CHECKSUMS).read_text()) == self._checksums(path))
        except (OSError, ValueError):
            return False

    def _checksums(self, path: Path) -> dict[str, str]:
        """Digest each file with the cache's name, so that files of another cache do not match."""
        digests = {}
        for name in self._files:
            with (path / name).open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.sha256(self.name.encode()))
            digests[name] = digest.hexdigest()
        return digests

    def _compute_all(self, path: Path, advance: Callable[[int], None]) -> None:
        first = self._compute(0)
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            with FileLock(self.folder.with_name(f"{self.folder.name}.lock")):  # for a moment
                self._sweep()
                self._make_room(sum(int(array[0].nbytes) for array in first) * len(self.views))
                # Under a temporary name until complete: a killed run leaves no half cache.
                temporary = stack.enter_context(temporary_directory(self.folder))
                lock = temporary.with_suffix(".lock")
                stack.callback(lock.unlink, missing_ok=True)
                stack.enter_context(FileLock(lock))
            self._write(temporary, first, advance)
            (temporary / CHECKSUMS).write_text(json.dumps(self._checksums(temporary)))
            with suppress(OSError):  # another run has finished the same work meanwhile
                temporary.rename(path)

    def _sweep(self) -> None:
        """Remove half-made caches of killed runs, whose locks are free."""
        for part in self.folder.glob(".*.part"):
            lock = part.with_suffix(".lock")
            with suppress(Timeout):
                with FileLock(lock, timeout=0):
                    shutil.rmtree(part, ignore_errors=True)
                lock.unlink(missing_ok=True)

    def _compute(self, start: int) -> Features:
        """Compute the features of one batch of views from number `start`."""
        views = self.views[start : start + self.batch_size]
        images = np.stack([self._pixels(view) for view in views])
        maps = self.extractor(torch.from_numpy(images).to(self.extractor.device))
        return [m.cpu().contiguous().numpy() for m in maps]

    def _pixels(self, view: TrainingTile) -> NDArray[np.uint8]:
        """Prepare a view, (height, width, 3); an image is read once for its successive tiles."""
        whole = replace(view, tile=0)
        if self._tiles is None or self._tiles[0] != whole:
            image = self._read(view)
            layout = compute_layout(self.geometry, image.shape[:2], self.input_size, self.extractor.strides)
            self._tiles = whole, layout.prepare(image).tiles()
        return self._tiles[1][view.tile]

    def _read(self, view: TrainingTile) -> NDArray[np.uint8]:
        # Checked against its hash: features of another image would be stored under it.
        image = read(PinnedImage(view.path, view.sha256), self.sample_bits)
        if view.variant is None:
            return image
        try:
            return view.variant.apply(image)
        except AugmentError as error:
            raise AugmentError(f"{view.path}: {error}") from error

    def _write(self, folder: Path, first: Features, advance: Callable[[int], None]) -> None:
        # Written, not mapped: on a full disk a write fails with an error, a mapped page with a signal.
        with ExitStack() as stack:
            files = [stack.enter_context((folder / name).open("wb")) for name in self._files]
            for file, array in zip(files, first, strict=True):
                write_header(file, array.dtype, (len(self.views), *array.shape[1:]))
            for start in range(0, len(self.views), self.batch_size):
                batch = self._compute(start) if start else first
                for file, array in zip(files, batch, strict=True):
                    file.write(np.ascontiguousarray(array, np.float32).data)
                advance(len(batch[0]))

    def _make_room(self, nbytes: int) -> None:
        """Remove the least recently used caches until there is room for `nbytes`.

        A run that has mapped a removed cache continues with it; its space is freed when that run ends.
        """
        if nbytes > self.max_bytes:
            raise CacheError(
                f"the features take {nbytes / GIB:.2f} GiB, and feature_cache.max_gib allows "
                f"{self.max_bytes / GIB:.2f}: raise it in the run's YAML, or take a smaller input_size or "
                "geometry.max_tiles, fewer stages or fewer augment.copies"
            )
        caches = [path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        caches.sort(key=lambda path: path.stat().st_mtime)
        total = sum(map(_size, caches))
        for cache in caches:
            if total + nbytes <= self.max_bytes and shutil.disk_usage(self.folder).free >= nbytes:
                break
            total -= _size(cache)
            with suppress(OSError):  # another run removed it first, or (on Windows) has it mapped
                remove_directory(cache)
        if (free := shutil.disk_usage(self.folder).free) < nbytes:
            raise CacheError(
                f"the features take {nbytes / GIB:.2f} GiB, and {self.folder} has {free / GIB:.2f} GiB "
                "left: free some, or let --runs name a folder on a larger disk"
            )


def write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Begin a .npy file, whose values follow in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
