"""Feature maps of the training pictures, computed once and kept on disk.

The backbone is frozen, so its output never changes: an epoch costs the flows alone, and a second run with
another seed or other flow settings starts at once.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flows.fastflow.features import FeatureExtractor
from flows.fastflow.images import read, resize
from training.versions import library_versions

Features = list[NDArray[np.float32]]


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """sha256 of each file's bytes."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def fingerprint(hashes: Sequence[str]) -> str:
    """One sha256 for a set of files, whatever their names and order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def cached_features(
    folder: Path,
    extractor: FeatureExtractor,
    paths: Sequence[Path],
    hashes: Sequence[str],
    *,
    input_size: tuple[int, int],
    batch_size: int,
    advance: Callable[[int], None],
) -> Features:
    """Feature maps of pictures, from the cache or computed into it.

    Args:
        folder: where caches lie; one sub-folder per content.
        extractor: the frozen backbone.
        paths: the pictures.
        hashes: `file_hashes` of them: the cache is keyed by content, not by name or time.
        input_size: (height, width) that pictures are resized to.
        batch_size: pictures per pass of the backbone.
        advance: called with the number of pictures done since the last call.

    Returns:
        Per scale (N, C_i, H_i, W_i) float32, memory-mapped and read-only, in the order of the paths.

    Raises:
        ImageError: a picture cannot be read; it is named.
    """
    # With all that moves the last bits of a feature: a run is deterministic, cache or no cache.
    computing = [str(extractor.offset.device), torch.get_num_threads(), batch_size, library_versions()]
    key = json.dumps(
        [extractor.name, extractor.weights_sha256, extractor.out_indices, input_size, computing, list(hashes)]
    )
    target = folder / hashlib.sha256(key.encode()).hexdigest()[:24]
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Under a temporary name until complete, so that a killed run leaves no half cache behind.
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{target.name}-", suffix=".part"))
        try:
            _compute(temporary, extractor, paths, input_size, batch_size, advance)
            temporary.replace(target)
        except OSError:
            # Another run may have finished the same work meanwhile: its result is as good.
            if not target.exists():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        # What killed runs left of the same work: hundreds of megabytes.
        for left in folder.glob(f".{target.name}-*.part"):
            shutil.rmtree(left, ignore_errors=True)
    else:
        advance(len(paths))
    return [np.load(target / f"scale_{i}.npy", mmap_mode="r") for i in range(len(extractor.channels))]


def _compute(
    folder: Path,
    extractor: FeatureExtractor,
    paths: Sequence[Path],
    input_size: tuple[int, int],
    batch_size: int,
    advance: Callable[[int], None],
) -> None:
    arrays: list[NDArray[np.float32]] = []
    for start in range(0, len(paths), batch_size):
        images = np.stack([resize(read(p), input_size) for p in paths[start : start + batch_size]])
        maps = extractor(torch.from_numpy(images).to(extractor.offset.device))
        if not arrays:
            arrays = [
                np.lib.format.open_memmap(
                    folder / f"scale_{i}.npy",
                    mode="w+",
                    dtype=np.float32,
                    shape=(len(paths), *m.shape[1:]),
                )
                for i, m in enumerate(maps)
            ]
        for array, m in zip(arrays, maps, strict=True):
            array[start : start + len(images)] = m.cpu().numpy()
        advance(len(images))
