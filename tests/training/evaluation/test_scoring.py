"""Scoring of a test set: decisions against the truth, pixels only with a known truth."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import read_image
from training.data.sample import Sample
from training.evaluation.scoring import Evaluation, score_test_set


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, tiny_images: dict[str, list[bytes]]) -> list[Sample]:
    folder = tmp_path_factory.mktemp("test")
    found = []
    for kind, defect in (("good", None), ("defect", "scratch")):
        for i, data in enumerate(tiny_images[kind][:3]):
            path = folder / f"{kind}-{i}.png"
            path.write_bytes(data)
            found.append(Sample(path, defect, None))
    return found


def ignore(steps: int) -> None:
    """Progress without output."""


def pixel_auroc(evaluation: Evaluation) -> float | None:
    return evaluation.figures.pixels.auroc if evaluation.figures.pixels else None


def bright(path: Path) -> NDArray[np.bool_]:
    """Where the scratch of a made-up part is: nothing else in the image is as bright."""
    return np.asarray(read_image(path).min(2) > 200, dtype=np.bool_)


def with_masks(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    found = []
    for sample in samples:
        if sample.defect is not None:
            path = folder / f"{sample.path.stem}_mask.png"
            assert cv2.imwrite(str(path), 255 * bright(sample.path).astype(np.uint8))
            sample = dataclasses.replace(sample, mask=path)
        found.append(sample)
    return found


@pytest.fixture(scope="module")
def evaluation(detector: Detector, samples: list[Sample]) -> Evaluation:
    return score_test_set(detector, samples, ignore)


def test_rates_are_shares_of_their_own_kind(
    detector: Detector, samples: list[Sample], evaluation: Evaluation
) -> None:
    rejected = [row.decision == "REJECT" for row in evaluation.rows]
    assert evaluation.false_rejects == sum(rejected[:3]) / 3
    assert evaluation.escapes == 1 - sum(rejected[3:]) / 3
    # Told the truth the wrong way round, every rate turns into the other's complement.
    swapped = [dataclasses.replace(s, defect=None if s.defect else "scratch") for s in samples]
    opposite = score_test_set(detector, swapped, ignore)
    assert opposite.false_rejects == pytest.approx(1 - evaluation.escapes)
    assert opposite.escapes == pytest.approx(1 - evaluation.false_rejects)
    assert opposite.figures.image_auroc == 0.0


@pytest.fixture(scope="module")
def reviewing(detector: Detector) -> Detector:
    """The detector, whose bundle asks for a review band below its threshold, wide enough for good parts."""
    manifest = detector.manifest.model_copy(update={"review_fpr": 0.9})
    return Detector(manifest, detector.sha256, detector.scorer)


def test_review_band_is_neither_reject_nor_escape(reviewing: Detector, samples: list[Sample]) -> None:
    # A good part labelled as a defect, like an invisible one.
    chosen = [*samples, dataclasses.replace(samples[0], defect="dent")]
    reject, review = reviewing.calibrator.threshold.reject, reviewing.calibrator.threshold_at(0.9).reject
    assert review < reject
    found = score_test_set(reviewing, chosen, ignore)
    wanted = [
        "REJECT" if x > reject else "REVIEW" if x > review else "PASS" for x in (r.score for r in found.rows)
    ]
    assert [row.decision for row in found.rows] == wanted
    assert "REVIEW" in wanted
    good, defective = wanted[:3], wanted[3:]
    assert found.reviews is not None
    assert (found.reviews.review_fpr, found.reviews.threshold) == (0.9, review)
    assert found.reviews.good == good.count("REVIEW") / 3
    assert found.reviews.defective == defective.count("REVIEW") / 4
    assert found.false_rejects == good.count("REJECT") / 3
    assert (found.recall, found.escapes) == (defective.count("REJECT") / 4, defective.count("PASS") / 4)


def test_every_kind_of_defect_has_its_own_figures(detector: Detector, samples: list[Sample]) -> None:
    """An invisible dent looks like a good part: it wins half of its pairs by chance."""
    dents = [dataclasses.replace(s, defect="dent") for s in samples[:3]]
    found = score_test_set(detector, [*samples, *dents], ignore)
    assert list(found.defects) == ["scratch", "dent"]
    scratch, dent = found.defects.values()
    assert (scratch.count, scratch.image_auroc) == (3, 1.0)
    assert (dent.count, dent.image_auroc) == (3, 0.5)
    rejected = {row.path: row.decision == "REJECT" for row in found.rows}
    assert scratch.recall == sum(rejected[s.path] for s in samples[3:]) / 3
    assert dent.recall == sum(rejected[s.path] for s in dents) / 3
    assert found.recall == (scratch.recall + dent.recall) / 2


def test_pixel_auroc_is_on_raw_maps_at_the_models_size(
    detector: Detector, samples: list[Sample], tmp_path: Path
) -> None:
    masked = with_masks(samples, tmp_path)
    maps = [detector.predict([read_image(s.path)])[0].score_map for s in masked]
    truth = [bright(s.path) if s.defect else np.zeros((64, 64), dtype=np.bool_) for s in masked]
    found = pixel_auroc(score_test_set(detector, masked, ignore))
    wanted = float(roc_auc_score(np.stack(truth).ravel(), np.stack(maps).ravel()))
    assert found == pytest.approx(wanted, abs=1e-12)
    assert wanted > 0.9


def test_defect_without_a_mask_leaves_pixels_out(
    detector: Detector, samples: list[Sample], tmp_path: Path
) -> None:
    """Its pixels are not good, and no mask marks the defective ones."""
    masked = with_masks(samples, tmp_path)
    all_but_one = [*masked[:5], dataclasses.replace(masked[5], mask=None)]
    found = score_test_set(detector, all_but_one, ignore)
    assert pixel_auroc(found) == pixel_auroc(score_test_set(detector, masked[:5], ignore))
    assert len(found.rows) == 6


def test_images_and_masks_of_other_sizes_are_resized(
    detector: Detector, samples: list[Sample], tmp_path: Path
) -> None:
    def enlarge(path: Path, interpolation: int) -> Path:
        large = tmp_path / f"large-{path.name}"
        image = cv2.resize(read_image(path), (200, 120), interpolation=interpolation)
        assert cv2.imwrite(str(large), image[..., ::-1])
        return large

    enlarged = []
    for sample in with_masks(samples, tmp_path):
        mask = None if sample.mask is None else enlarge(sample.mask, cv2.INTER_NEAREST)
        enlarged.append(Sample(enlarge(sample.path, cv2.INTER_LINEAR), sample.defect, mask))
    found = score_test_set(detector, enlarged, ignore)
    assert found.figures.image_auroc == 1.0
    assert (pixel_auroc(found) or 0) > 0.85


@pytest.mark.parametrize("kind", ["good", "defective"])
def test_with_one_kind_what_can_be_said_is(reviewing: Detector, samples: list[Sample], kind: str) -> None:
    chosen = samples[:3] if kind == "good" else samples[3:]
    result = score_test_set(reviewing, chosen, ignore)
    assert len(result.rows) == 3
    assert result.figures.image_auroc is None
    assert (result.false_rejects is None) == (kind == "defective")
    assert (result.escapes is None) == (kind == "good")
    assert result.reviews is not None
    assert (result.reviews.good is None) == (kind == "defective")
    assert (result.reviews.defective is None) == (kind == "good")
