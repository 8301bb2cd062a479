"""What stands in the way of pictures in their own folder, and that one holds up no other."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from app.client import Client
from tests.app.client.watch.conftest import ids, job, once, once_in_time

Images = dict[str, list[bytes]]

pytestmark = pytest.mark.usefixtures("soon")


@pytest.mark.parametrize("moved", [False, True])
def test_a_file_that_stays_empty_is_set_aside(
    client: Client, folder: Path, tmp_path: Path, moved: bool
) -> None:
    (folder / "empty.png").write_bytes(b"")
    out = tmp_path / "out" if moved else None
    heard, complete = once_in_time(client, job(folder, f"empty-{moved}", move_to=out))
    assert complete
    assert [(one.file.name, one.inspection) for one in heard.outcomes] == [("empty.png", None)]
    told = (folder if out is None else out / "failed") / "empty.png.json"
    assert json.loads(told.read_bytes())["problem"]["detail"]
    assert once_in_time(client, job(folder, f"empty-{moved}", move_to=out))[0].outcomes == []


def test_a_folder_that_cannot_be_read_is_said_once_and_passed_over(
    client: Client, folder: Path, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, and the service in this process must too."""
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    (folder / "lost+found").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> object:
        if str(path).endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    heard, complete = once(client, job(folder, "closed"))
    assert (complete, len(ids(heard))) == (True, 1)
    assert heard.reasons == [f"{folder / 'lost+found'}: Permission denied; what is in it is not inspected"]
