"""Archives: what is packed comes out the same; nothing else comes out."""

import io
import os
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from app import packing
from app.packing import ArchiveError, pack
from flows.fastflow import bundle
from flows.fastflow.bundle import BundleError
from flows.fastflow.manifest import MAX_FILES
from tests.flows.fastflow.manifests import made, manifest

LIMIT = 1_000_000
MANIFEST = manifest().model_dump_json().encode()


def packed(folder: Path) -> bytes:
    file = io.BytesIO()
    pack(folder, file)
    return file.getvalue()


def unpack(tmp_path: Path, data: bytes, limit: int = LIMIT) -> Path:
    path = tmp_path / "upload.zip"
    path.write_bytes(data)
    manifest = packing.unpack(path, tmp_path / "out", limit)
    return tmp_path / "out" / manifest.category / manifest.version


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, data in (("manifest.json", MANIFEST), *members):
            target.writestr(name, data)
    return file.getvalue()


def refused(tmp_path: Path, data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(ArchiveError) as caught:
        unpack(tmp_path, data, limit)
    assert str(tmp_path) not in str(caught.value)
    assert "upload.zip" not in str(caught.value)
    return str(caught.value)


class TestPack:
    def test_what_comes_out_is_what_was_packed(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "models")
        out = unpack(tmp_path, packed(folder))
        names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == names
        for name in names:
            assert (out / name).read_bytes() == (folder / name).read_bytes()
            assert stat.S_IMODE((out / name).stat().st_mode) & 0o133 == 0
        assert packed(made(tmp_path / "again")) == packed(folder)

    def test_a_damaged_bundle_is_not_packed(self, tmp_path: Path) -> None:
        folder = made(tmp_path)
        (folder / "golden" / "0.png").write_bytes(b"other")
        with pytest.raises(BundleError, match="was changed"):
            packed(folder)

    def test_an_archive_with_members_for_directories_is_read_too(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "models")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            for path in sorted(folder.rglob("*")):
                target.write(path, path.relative_to(folder).as_posix())
        assert bundle.MANIFEST in os.listdir(unpack(tmp_path, file.getvalue()))  # noqa: PTH208


NAMES = ["/etc/passwd", "../x", "a/../../x", "..", "./a", "a//b", ".hidden", "a\\b", "C:x", "a\nb", "a" * 256]


class TestMembers:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_that_is_not_plain_and_relative(self, tmp_path: Path, name: str) -> None:
        assert refused(tmp_path, zipped((zipfile.ZipInfo(name), b"x"))).startswith("A member is named")
        assert {p.name for p in tmp_path.iterdir()} == {"upload.zip"}

    def test_another_name_in_the_member_than_in_the_list(self, tmp_path: Path) -> None:
        data = zipped(("golden/0.png", b"x"))
        first = data.index(b"golden/0.png")
        assert "damaged" in refused(tmp_path, data[:first] + b"../../../0.p" + data[first + 12 :])

    def test_a_member_twice(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="Duplicate name"):
            data = zipped(("golden/0.png", b"x"), ("golden/0.png", b"y"))
        assert "holds 'golden/0.png' more than once" in refused(tmp_path, data)

    @pytest.mark.parametrize("order", [("a", "a/b"), ("a/b/c", "a")])
    def test_a_file_that_is_also_a_directory(self, tmp_path: Path, order: tuple[str, str]) -> None:
        data = zipped(*((name, b"x") for name in order))
        assert "'a' both as a file and as a directory" in refused(tmp_path, data)

    def test_no_manifest_at_the_top(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            target.writestr("20260101T000000-abcdef/manifest.json", b"{}")
        assert "no manifest.json at its top. Make it with" in refused(tmp_path, file.getvalue())

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
    def test_a_link_or_a_device(self, tmp_path: Path, kind: int) -> None:
        info = zipfile.ZipInfo("golden/0.png")
        info.external_attr = (kind | 0o777) << 16
        assert "is no plain file" in refused(tmp_path, zipped((info, b"/etc/passwd")))


class TestSizes:
    def test_together_more_than_the_limit(self, tmp_path: Path) -> None:
        data = zipped(*((str(i), bytes(LIMIT // 4)) for i in range(5)))
        assert refused(tmp_path, data) == (
            "Unpacked, the bundle would have more than 1,000,000 bytes, the limit."
        )
        assert not (tmp_path / "out").exists()
        unpack(tmp_path, data, 5 * (LIMIT // 4) + len(MANIFEST))

    @pytest.mark.parametrize("claimed", [0, 1000])
    def test_more_than_a_member_claims(self, tmp_path: Path, claimed: int) -> None:
        bomb = bytes(10 * LIMIT)
        data = zipped(("bomb", bomb)).replace(struct.pack("<L", len(bomb)), struct.pack("<L", claimed))
        refused(tmp_path, data)
        assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("bomb")) < 10_000

    def test_a_giant_manifest(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("manifest.json", bytes(bundle.MAX_MANIFEST + 1))
        assert "manifest.json has more than 67,108,864 bytes" in refused(tmp_path, file.getvalue(), 2**30)

    def test_too_many_members(self, tmp_path: Path) -> None:
        data = zipped(*((str(i), b"") for i in range(MAX_FILES + 1)))
        assert refused(tmp_path, data) == (
            f"The archive has {MAX_FILES + 2} members; at most {MAX_FILES + 1} are allowed."
        )


class TestDamage:
    @pytest.mark.parametrize("data", [b"", b"PK\5\6", b"not a zip" * 100])
    def test_no_archive(self, tmp_path: Path, data: bytes) -> None:
        assert "no ZIP archive" in refused(tmp_path, data)

    def test_cut_off_anywhere(self, tmp_path: Path) -> None:
        data = packed(made(tmp_path / "models"))
        for length in range(0, len(data), 197):
            refused(tmp_path, data[:length])

    def test_one_bit_of_a_file_changed(self, tmp_path: Path) -> None:
        data = bytearray(zipped(("a", b"picture"), method=zipfile.ZIP_STORED))
        data[data.index(b"picture")] ^= 1
        assert "damaged" in refused(tmp_path, bytes(data))

    @pytest.mark.parametrize("seed", range(3))
    def test_any_bytes_changed(self, tmp_path: Path, seed: int) -> None:
        """It is refused in our words, or what comes out has the sizes and the places that were allowed."""
        whole = packed(made(tmp_path / "models"))
        rng = random.Random(seed)
        for i in range(60):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            folder = tmp_path / str(i)
            folder.mkdir()
            try:
                unpack(folder, bytes(data), 100_000)
            except (ArchiveError, BundleError):
                continue
            assert sum(p.stat().st_size for p in (folder / "out").rglob("*")) < 200_000
