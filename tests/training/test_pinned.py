"""Pictures that are read later are the files that were hashed, or an error that names them."""

import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from flows.fastflow import images
from flows.fastflow.images import FILE_LIMITS, ImageError
from tests.training.pins import pins
from training.datasets.sample import DatasetError
from training.pinned import Pinned, expect_there, read, read_bytes, size_of


@pytest.fixture
def paths(tiny_data: Path, tmp_path: Path) -> list[Path]:
    """Three pictures of the test's own."""
    originals = sorted((tiny_data / "tiny/train/good").iterdir())[:3]
    return [Path(shutil.copy(path, tmp_path)) for path in originals]


def test_a_picture_that_stayed_as_it_was_is_read_as_any_other(paths: list[Path]) -> None:
    [picture] = pins(paths[:1])
    assert read_bytes(picture) == paths[0].read_bytes()
    assert np.array_equal(read(picture, 16), images.read(paths[0]))


def test_a_link_counts_by_what_it_leads_to(paths: list[Path], tmp_path: Path) -> None:
    """As of links to pictures on another disk; they are hashed so, too."""
    link = tmp_path / "link.png"
    link.symlink_to(paths[0])
    [picture] = pins([link])
    assert np.array_equal(read(picture, 16), images.read(paths[0]))
    link.unlink()
    link.symlink_to(paths[1])
    with pytest.raises(DatasetError, match=r"link\.png was changed since the run began"):
        read(picture, 16)


def test_one_changed_byte_is_told_and_what_to_do(paths: list[Path]) -> None:
    [picture] = pins(paths[:1])
    paths[0].write_bytes(paths[0].read_bytes() + b"\0")  # the pixels are the same
    told = r"000\.png was changed since the run began\. Put it back .*--resume goes on from what is fitted"
    with pytest.raises(DatasetError, match=told):
        read(picture, 16)


def test_a_picture_that_is_cut_off_since_was_changed_and_one_that_always_was_is_no_picture(
    paths: list[Path],
) -> None:
    [before] = pins(paths[:1])
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"000\.png was changed"):
        read(before, 16)
    [after] = pins(paths[:1])
    with pytest.raises(ImageError, match=r"000\.png: "):
        read(after, 16)


def test_a_picture_that_has_grown_too_large_was_changed(paths: list[Path]) -> None:
    [picture] = pins(paths[:1])
    os.truncate(paths[0], FILE_LIMITS.max_bytes + 2)
    with pytest.raises(DatasetError, match=r"000\.png was changed since the run began"):
        read(picture, 16)


def test_a_picture_that_is_gone_is_told_and_what_to_do(paths: list[Path]) -> None:
    [picture] = pins(paths[:1])
    paths[0].unlink()
    with pytest.raises(DatasetError, match=r"(?s)000\.png: No such.*Put them back, and --resume goes on"):
        read(picture, 16)


def test_a_size_is_that_of_the_pixels_and_read_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    PIL.Image.new("RGB", (30, 20)).save(path)
    [picture] = pins([path])
    assert size_of(picture) == read(picture, 16).shape[:2] == (20, 30)
    data = path.read_bytes()
    path.write_bytes(data[:45] + bytes(5) + data[50:])  # in the compressed pixels
    with pytest.raises(DatasetError, match=r"long\.png was changed since the run began"):
        size_of(picture)
    [damaged] = pins([path])
    assert size_of(damaged) == (20, 30)
    with pytest.raises(ImageError, match=r"long\.png: The PNG picture cannot be decoded"):
        read(damaged, 16)
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"long\.png: The file is not a PNG"):
        size_of(pins([path])[0])
    path.unlink()
    with pytest.raises(DatasetError, match=r"(?s)long\.png: No such.*Put them back"):
        size_of(damaged)


def test_pictures_that_are_gone_are_named_together(paths: list[Path]) -> None:
    pictures = pins(paths)
    expect_there(pictures)
    paths[0].unlink()
    paths[2].unlink()
    paths[2].symlink_to("nowhere")
    with pytest.raises(DatasetError) as raised:
        expect_there(pictures)
    first, *named, last = str(raised.value).splitlines()
    assert first == "pictures that were there when the run began cannot be read any more, 2 in number:"
    assert named == [f"  {paths[i]}: No such file or directory" for i in (0, 2)]
    assert last.startswith("Put them back, and --resume goes on from what is fitted; without them")


def test_of_very_many_that_are_gone_the_first_are_named(tmp_path: Path) -> None:
    """As of a disk that is no longer mounted."""
    with pytest.raises(DatasetError) as raised:
        expect_there([Pinned(tmp_path / f"{i}.png", "") for i in range(1000)])
    assert len(str(raised.value).splitlines()) == 1 + 20 + 1 + 1
    assert "  and 980 more" in str(raised.value).splitlines()
