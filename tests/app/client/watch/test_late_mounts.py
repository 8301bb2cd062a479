"""Folders that go and come: a share that is mounted after the start, and what somebody tidies up.

Here another folder is renamed into the place of the one that was there, which looks the same from above it.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from app.client import Client
from app.client.watch.ledger import OWN
from tests.app.client.watch.conftest import job, watching
from tests.support.waiting import eventually

Images = dict[str, list[bytes]]


def mount(share: Path, folder: Path) -> None:
    """Put a share over a folder."""
    folder.rename(folder.with_name("below"))
    share.rename(folder)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


@pytest.mark.parametrize("how", ["empty folders", "all that is ours", "a mount"])
def test_images_are_moved_after_the_taken_folder_is_gone(
    client: Client, folder: Path, share: Path, tmp_path: Path, tiny_images: Images, how: str
) -> None:
    first, second = tiny_images["good"][:2]
    (folder / "a.png").write_bytes(first)
    out = tmp_path / "out"
    with watching(client, job(folder, f"gone by {how}", move_to=out)) as heard:
        eventually(lambda: len(heard.outcomes) == 1)
        match how:
            case "empty folders":
                subprocess.run(
                    ["find", folder, "-mindepth", "1", "-type", "d", "-empty", "-delete"], check=True
                )
            case "all that is ours":
                shutil.rmtree(folder / OWN)
            case _:
                mount(share, folder)
        (folder / "b.png").write_bytes(second)
        eventually(lambda: len(heard.outcomes) == 2)
    assert len(set(heard.ids)) == 2
    assert sorted(path.name for path in out.glob("*.png")) == ["a.png", "b.png"]
