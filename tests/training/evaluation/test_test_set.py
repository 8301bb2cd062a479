"""Test set: choice, fingerprint and independence of names."""

from pathlib import Path

from flows.fastflow.files.plain_files import file_hashes
from training.data.layout import test_samples as samples_of
from training.evaluation.test_set import TestSet, fingerprint


def test_the_fingerprint_is_of_contents_kinds_and_masks(tmp_path: Path) -> None:
    def found() -> str:
        samples = samples_of(tmp_path, "tile")
        paths = [sample.path for sample in samples]
        return fingerprint(TestSet(samples, dict(zip(paths, file_hashes(paths), strict=True)), 0, 0, []))

    test, masks = tmp_path / "tile/test", tmp_path / "tile/ground_truth/dent"
    for name in ("good/0.png", "good/1.png", "scratch/0.png"):
        (test / name).parent.mkdir(parents=True, exist_ok=True)
        (test / name).write_text(name)
    first = found()
    (test / "good/0.png").rename(test / "good/zzz.png")
    assert found() == first
    (test / "scratch").rename(test / "dent")
    renamed = found()
    masks.mkdir(parents=True)
    (masks / "0_mask.png").write_text("a mask")
    masked = found()
    (masks / "0_mask.png").unlink()
    (masks / "0_mask").mkdir()
    (masks / "0_mask/0.png").write_text("another mask")
    assert len({first, renamed, masked, found()}) == 4
