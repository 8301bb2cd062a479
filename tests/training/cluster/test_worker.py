"""The check of a node, which runs on each of them."""

from pathlib import Path

from training.cluster.worker import describe_fault
from training.versions import library_versions


def test_node_with_the_same_versions_and_folders_is_sound(tmp_path: Path) -> None:
    assert describe_fault([tmp_path], library_versions()) is None


def test_other_version_is_named(tmp_path: Path) -> None:
    fault = describe_fault([tmp_path], {**library_versions(), "flowgauge": "9.9"})
    here = library_versions()["flowgauge"]
    assert fault is not None
    assert f" has flowgauge {here} instead of 9.9: install the same versions on all nodes" in fault


def test_folder_that_the_node_does_not_see_is_named(tmp_path: Path) -> None:
    fault = describe_fault([tmp_path, tmp_path / "away"], library_versions())
    assert fault is not None
    assert f" does not see {tmp_path / 'away'}: --data, --models and --runs must be folders" in fault
