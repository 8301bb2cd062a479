"""Folders of replicas."""

from pathlib import Path

from app.cluster.replica import take_folder


def test_free_folder_is_taken_first(tmp_path: Path) -> None:
    first, lock = take_folder(tmp_path)
    second, other = take_folder(tmp_path)
    assert [first.name, second.name] == ["replica-0", "replica-1"]
    lock.release()  # as its process ends
    again, lock = take_folder(tmp_path)
    assert again == first
    lock.release()
    other.release()
