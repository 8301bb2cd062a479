"""Engines against the reference: what is compared, and what is seen."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.engines import REFERENCE, Seen, agreement, look, report
from flows.fastflow.models_folder import resolve
from tests.flows.fastflow.manifests import edit

_REFERENCE = Seen([1.0, 2.0, 4.0, 8.0], [False, False, True, True], 1.0, 0.9, True, 20)


def test_decisions_are_compared_each_at_its_own_threshold() -> None:
    # Every score is half as large, and so is the threshold: nothing is decided otherwise but one picture.
    other = Seen([0.5, 1.0, 2.0, 4.0], [False, True, True, True], 0.75, 0.85, True, 20)
    found = agreement("part", "torch-bfloat16", other, _REFERENCE)
    assert found.pictures == 4
    assert found.agreement == 0.75
    assert found.image_difference == pytest.approx(-0.25)
    assert found.pixel_difference == pytest.approx(-0.05)
    assert found.largest_difference == 0.5
    assert found.row[2:5] == ["0.7500 (-0.2500)", "0.8500 (-0.0500)", "75.00% of 4"]


def test_what_no_test_set_can_tell_is_left_open() -> None:
    blind = replace(_REFERENCE, pixel_auroc=None, certified=False)
    found = agreement("part", "torch-bfloat16", blind, blind)
    assert found.pixel_difference is None
    assert found.row[3] == "- (-)"
    assert found.row[-1] == "not certified by 20"
    assert "image AUROC +0.0000 and pixel AUROC - in the mean" in report([found])


def test_an_engine_is_told_by_its_mean_and_its_worst() -> None:
    worse = replace(_REFERENCE, rejected=[True, True, False, True], image_auroc=0.9)
    found = [
        agreement("a", REFERENCE, _REFERENCE, _REFERENCE),
        agreement("a", "torch-bfloat16", _REFERENCE, _REFERENCE),
        agreement("b", "torch-bfloat16", worse, _REFERENCE),
    ]
    [line] = [line for line in report(found).splitlines() if line.startswith("- ")]
    assert line == (
        "- torch-bfloat16: image AUROC -0.0500 and pixel AUROC +0.0000 in the mean; "
        "62.50% decided alike, 25.00% at least"
    )


@pytest.mark.parametrize("scores", [[], [1.0]])
def test_other_pictures_cannot_be_compared(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="expected the same pictures"):
        agreement("part", "torch-bfloat16", replace(_REFERENCE, scores=scores), _REFERENCE)


def test_an_engine_is_calibrated_by_its_own_scores(tiny_bundle_store: Path, tiny_data: Path) -> None:
    reference = look(tiny_data, "tiny", tiny_bundle_store, REFERENCE)
    other = look(tiny_data, "tiny", tiny_bundle_store, "torch-bfloat16")
    assert len(reference.scores) == 16
    assert reference.n_calibration == other.n_calibration > 0
    assert reference.pixel_auroc is None  # there are no masks
    assert other.scores != reference.scores
    found = agreement("tiny", "torch-bfloat16", other, reference)
    assert 0 < found.largest_difference < 0.1


def test_the_thresholds_of_the_model_decide_nothing(
    tiny_bundle_store: Path, tiny_data: Path, tmp_path: Path
) -> None:
    models = shutil.copytree(tiny_bundle_store, tmp_path / "models", symlinks=True)

    def raised(document: dict[str, Any]) -> None:
        document["calibration"]["scores"] = [1000 * s for s in document["calibration"]["scores"]]
        document["thresholds"]["float32"]["reject"] *= 1000

    edit(resolve(models, "tiny"), raised)
    found = look(tiny_data, "tiny", models, REFERENCE)
    assert any(found.rejected)
    assert found == look(tiny_data, "tiny", tiny_bundle_store, REFERENCE)


def test_other_training_pictures_are_refused(
    tiny_bundle_store: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "tiny/train/good/000.png").unlink()
    with pytest.raises(ValueError, match=r"not those that .* was trained on"):
        look(data, "tiny", tiny_bundle_store, REFERENCE)
