"""Ground truth at the size of a map: no defect vanishes, falls apart or spreads."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.sample import Sample
from training.evaluation.ground_truth import downscale_mask, read_ground_truth


@pytest.mark.parametrize("size", [(256, 256), (450, 450), (900, 900), (1200, 1000)])
def test_defect_of_many_pixels_is_as_others_reduce_it(size: tuple[int, int]) -> None:
    mask = cv2.circle(np.zeros((900, 900), np.uint8), (400, 500), 200, 1, -1)
    nearest = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(downscale_mask(mask.astype(np.bool_), size), nearest.astype(np.bool_))


@pytest.mark.parametrize("size", [(40, 30), (40, 90), (123, 30), (300, 200)])
@pytest.mark.parametrize("seed", range(5))
def test_each_defect_is_there_whatever_the_sizes(size: tuple[int, int], seed: int) -> None:
    """Random specks: each touches a pixel that is defective, and a pixel without any is good."""
    mask = np.random.default_rng(seed).random((120, 80)) < 0.003
    small = downscale_mask(mask, size)
    labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    y, x = np.mgrid[: size[0], : size[1]]
    # What each pixel of the map covers of the mask, its border included.
    covered = np.zeros(size, dtype=np.bool_)
    hit = set()
    for v, u in zip(y.ravel(), x.ravel(), strict=True):
        rows = slice(v * 120 // size[0], max(-(-(v + 1) * 120 // size[0]), v * 120 // size[0] + 1))
        columns = slice(u * 80 // size[1], max(-(-(u + 1) * 80 // size[1]), u * 80 // size[1] + 1))
        covered[v, u] = mask[rows, columns].any()
        if small[v, u]:
            hit |= set(labels[rows, columns].ravel().tolist())
    assert hit - {0} == set(range(1, labels.max() + 1))
    assert not (small & ~covered).any()


def _sample(folder: Path, defect: str | None, *, row: int | None) -> Sample:
    """Of 4 by 4 pixels, one row of which its mask marks."""
    if row is None:
        return Sample(folder / "0.png", defect, None)
    mask = np.zeros((4, 4), np.uint8)
    mask[row : row + 1] = 255
    path = folder / f"{defect}_{row}.png"
    assert cv2.imwrite(str(path), mask)
    return Sample(folder / "0.png", defect, path)


_BEYOND = 4  # of an empty mask


@pytest.mark.parametrize(
    ("copies", "marked"),
    [
        ([], [0]),
        ([("scratch", 2)], [0, 2]),
        ([("dent", 1), ("scratch", 2), ("dent", 3)], [0, 1, 2, 3]),
        ([("dent", None)], [0]),  # what is there of the kind is marked by the other's mask
        ([("scratch", None)], []),
        ([("scratch", _BEYOND)], []),
        ([("scratch", None), ("scratch", 2)], [0, 2]),
    ],
    ids=str,
)
def test_masks_of_copies_are_united(
    tmp_path: Path, copies: list[tuple[str, int | None]], marked: list[int]
) -> None:
    others = tuple(_sample(tmp_path, kind, row=row) for kind, row in copies)
    first = _sample(tmp_path, "dent", row=0)
    truth = read_ground_truth(Sample(first.path, "dent", first.mask, others), (4, 4), (4, 4))
    assert np.flatnonzero(truth.all(axis=1)).tolist() == marked
    assert truth.sum() == 4 * len(marked)


def test_good_part_is_marked_nowhere(tmp_path: Path) -> None:
    good = _sample(tmp_path, None, row=None)
    assert not read_ground_truth(Sample(good.path, None, None, (good,)), (4, 4), (2, 2)).any()
