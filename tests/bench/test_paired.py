"""Differences between fits: figures of draws against the exact ones, and what the intervals say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bench.paired import Counts, compare, count, figures, look, main, report
from training.metrics import PixelMetrics

_SIDE = 48


def _pictures(
    n: int, strength: float, seed: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.float64], list[NDArray[np.float32]], list[NDArray[np.bool_]]]:
    """Noise with squares in every other picture, two in some; the noise is the same for any strength."""
    rng = np.random.default_rng(seed)
    defective = np.arange(n) % 2 == 1
    scores, maps, masks = [], [], []
    for i in range(n):
        mask = np.zeros((_SIDE, _SIDE), np.bool_)
        if defective[i]:
            mask[2 : 6 + i % 5, 3:9] = True
            mask[30:34, 30 : 31 + i % 7] = i % 3 == 0
        noise = rng.normal(size=(_SIDE, _SIDE)) + strength * mask
        maps.append(noise.astype(np.float32))
        masks.append(mask)
        scores.append(rng.normal() + strength * defective[i])
    return defective, np.array(scores), maps, masks


def _counts(n: int, strength: float, seed: int = 0) -> Counts:
    defective, scores, maps, masks = _pictures(n, strength, seed)
    return count(defective, scores, [m.ravel() for m in maps], masks)


def test_figures_of_all_pictures_are_the_exact_ones() -> None:
    defective, scores, maps, masks = _pictures(20, 1.0)
    found = figures(_counts(20, 1.0), np.ones((1, 20)))
    with PixelMetrics() as exact:
        for score_map, mask in zip(maps, masks, strict=True):
            exact.update(score_map, mask)
        expected = exact.compute()
    assert found["image_auroc"][0] == pytest.approx(roc_auc_score(defective, scores), abs=1e-12)
    assert found["pixel_auroc"][0] == pytest.approx(expected.auroc, abs=5e-4)
    assert found["aupro"][0] == pytest.approx(expected.aupro[0.3], abs=5e-4)


def test_a_draw_is_the_test_set_with_each_picture_so_often() -> None:
    drawn = np.array([0, 3, 1, 2, 1, 0, 4, 1, 0, 0], np.float64)
    defective, scores, maps, masks = _pictures(10, 0.5)
    chosen = np.repeat(np.arange(10), drawn.astype(int))
    again = figures(count(defective, scores, [m.ravel() for m in maps], masks), drawn[None])
    with PixelMetrics() as exact:
        for i in chosen:
            exact.update(maps[i], masks[i])
        expected = exact.compute()
    assert again["image_auroc"][0] == pytest.approx(
        roc_auc_score(defective[chosen], scores[chosen]), abs=1e-12
    )
    assert again["pixel_auroc"][0] == pytest.approx(expected.auroc, abs=1e-3)
    assert again["aupro"][0] == pytest.approx(expected.aupro[0.3], abs=1e-3)


def test_ties_count_half() -> None:
    defective = np.array([False, True, True])
    scores = np.array([1.0, 1.0, 2.0])
    nothing = [np.zeros(4, np.float32)] * 3
    counts = count(defective, scores, nothing, [np.zeros((2, 2), np.bool_)] * 3)
    assert figures(counts, np.ones((1, 3)))["image_auroc"].tolist() == [0.75]


def test_a_model_is_not_better_than_itself() -> None:
    same = _counts(20, 1.0)
    for of_one in compare([same], [same], 200).values():
        assert of_one["difference"] == 0
        assert of_one["interval"] == [0, 0]


def test_what_is_much_better_is_found_to_be() -> None:
    found = compare([_counts(40, 2.0)], [_counts(40, 0.5)], 200)
    assert set(found) == {"image_auroc", "pixel_auroc", "aupro"}
    for of_one in found.values():
        assert 0 < of_one["interval"][0] < of_one["difference"] < of_one["interval"][1]
    assert report("part", found).count("| one |") == 4  # the head's, and that of each figure
    turned = compare([_counts(40, 0.5)], [_counts(40, 2.0)], 200)
    assert turned["aupro"]["interval"] == pytest.approx([-x for x in found["aupro"]["interval"][::-1]])
    assert report("part", turned).count("| the other |") == 4


def test_what_differs_by_chance_is_not_told_apart() -> None:
    # Noise of the same strength: as many draws say the one as the other.
    found = compare([_counts(20, 0.7, seed=1)], [_counts(20, 0.7, seed=2)], 400)
    for of_one in found.values():
        assert of_one["interval"][0] < 0 < of_one["interval"][1]
    assert report("part", found).count("| neither |") == 3


def test_the_mean_over_several_models_is_compared() -> None:
    models = [_counts(20, strength) for strength in (0.5, 1.0, 1.5)]
    found = compare(models, [models[1]], 50)["pixel_auroc"]
    assert len(found["one"]) == 3
    assert found["difference"] == pytest.approx(np.mean(found["one"]) - found["other"][0])
    [line] = [x for x in report("p", {"pixel_auroc": found}).splitlines() if x.startswith("| pixel")]
    assert f"({min(found['one']):.4f} to {max(found['one']):.4f})" in line


def test_draws_without_a_masked_defect_do_not_count() -> None:
    defective, scores, maps, masks = _pictures(8, 1.0)
    for i in range(3, 8, 2):  # one of the four defects has a mask
        masks[i][:] = False
    known = [m.ravel() if i < 3 or not defective[i] else m.ravel()[:0] for i, m in enumerate(maps)]
    counts = count(defective, scores, known, masks)
    assert counts.n_regions.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    found = compare([counts], [counts], 100)
    assert found["aupro"]["interval"] == [0, 0]


@pytest.mark.parametrize("kind", [False, True])
def test_one_kind_of_pictures_says_nothing(kind: bool) -> None:
    counts = _counts(4, 1.0)
    of_one = Counts(np.full(4, kind), *list(vars(counts).values())[1:])
    with pytest.raises(ValueError, match="good and defective"):
        compare([of_one], [of_one], 10)


def test_other_pictures_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="other test pictures"):
        compare([_counts(4, 1.0)], [_counts(6, 1.0)], 10)


def test_maps_that_show_other_defects_cannot_be_compared() -> None:
    counts = _counts(8, 1.0)
    blind = Counts(*[value.copy() for value in vars(counts).values()])
    blind.n_regions[3] = 0
    for one, other in ((counts, blind), (blind, counts)):
        with pytest.raises(ValueError, match="of other pictures"):
            compare([one], [other], 10)


def test_models_are_compared_on_their_test_set(
    tiny_bundle_store: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    models = str(tiny_bundle_store)
    wanted = ["--data", str(tiny_data), "--category", "tiny", "--one", models, "--other", models]
    monkeypatch.setattr("sys.argv", ["paired", *wanted, "--draws", "20", "--out", str(tmp_path)])
    main()
    found = json.loads((tmp_path / "paired.json").read_text())
    counts = look(tiny_data, "tiny", tiny_bundle_store)
    assert len(counts.scores) == 16
    expected = roc_auc_score(counts.defective, counts.scores)
    assert set(found) == {"image_auroc"}  # there are no masks
    assert found["image_auroc"]["one"] == pytest.approx([expected])
    assert (tmp_path / "paired.md").read_text() in capsys.readouterr().out
