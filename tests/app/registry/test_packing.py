import io
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from app.registry import packing
from app.registry.packing import pack
from flows.fastflow.bundle import bundle
from flows.fastflow.bundle.bundle import BundleError
from tests.flows.fastflow.manifests import made, manifest

LIMIT = 1_000_000


def packed(folder: Path) -> bytes:
    file = io.BytesIO()
    pack(folder, file)
    return file.getvalue()


def unpack(tmp_path: Path, data: bytes, limit: int = LIMIT) -> Path:
    path = tmp_path / "upload.zip"
    path.write_bytes(data)
    found = packing.unpack(path, tmp_path / "out", "screw", limit)
    return tmp_path / "out" / found.category / found.version


def zipped(*members: tuple[str, bytes], listed: bool = True, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    files = {name: "0" * 64 for name, _ in members} if listed else {}
    complete = manifest().model_copy(update={"files": files})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, data in ((bundle.MANIFEST, complete.model_dump_json().encode()), *members):
            target.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def refused(tmp_path: Path, data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(BundleError) as caught:
        unpack(tmp_path, data, limit)
    assert str(tmp_path) not in str(caught.value)
    assert "upload.zip" not in str(caught.value)
    return str(caught.value)


class TestPack:
    def test_unpacked_bundle_equals_packed_bundle(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "models")
        out = unpack(tmp_path, packed(folder))
        names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == names
        for name in names:
            assert (out / name).read_bytes() == (folder / name).read_bytes()
            assert stat.S_IMODE((out / name).stat().st_mode) & 0o133 == 0
        assert packed(made(tmp_path / "again")) == packed(folder)

    def test_damaged_bundle_is_not_packed(self, tmp_path: Path) -> None:
        folder = made(tmp_path)
        (folder / "golden" / "0.png").write_bytes(b"other")
        with pytest.raises(BundleError, match="was changed"):
            packed(folder)

    def test_archive_with_directory_members_is_accepted(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "models")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            for path in sorted(folder.rglob("*")):
                target.write(path, path.relative_to(folder).as_posix())
        assert (unpack(tmp_path, file.getvalue()) / bundle.MANIFEST).is_file()


NAMES = ["/etc/passwd", "../x", "a/../../x", "..", "./a", "a//b", ".hidden", "a\\b", "C:x", "a\nb"]


class TestMembers:
    @pytest.mark.parametrize("name", NAMES)
    def test_odd_file_name_is_refused(self, tmp_path: Path, name: str) -> None:
        assert refused(tmp_path, zipped((name, b"x"))).startswith("A file is named")
        assert {p.name for p in tmp_path.iterdir()} == {"upload.zip"}

    def test_unlisted_file_is_refused(self, tmp_path: Path) -> None:
        message = refused(tmp_path, zipped(("a", b"x"), listed=False))
        assert message == "The archive does not hold the files that its manifest lists: ['a']."

    @pytest.mark.parametrize("order", [("a", "a/b"), ("a/b/c", "a")])
    def test_file_that_is_also_a_directory_is_refused(self, tmp_path: Path, order: tuple[str, str]) -> None:
        data = zipped(*((name, b"x") for name in order))
        assert refused(tmp_path, data).startswith("A file is named 'a'")

    def test_archive_without_manifest_is_refused(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            target.writestr("20260101T000000-abcdef/manifest.json", b"{}")
        assert "no manifest.json at its top. Make it with" in refused(tmp_path, file.getvalue())


class TestSizes:
    def test_archive_beyond_the_limit_is_refused(self, tmp_path: Path) -> None:
        data = zipped(*((str(i), bytes(LIMIT // 4)) for i in range(5)))
        assert refused(tmp_path, data) == (
            "Unpacked, the bundle would have more than 1,000,000 bytes, the limit."
        )
        assert not (tmp_path / "out").exists()
        unpack(tmp_path, data, 2 * LIMIT)

    @pytest.mark.parametrize("claimed", [0, 1000])
    def test_member_larger_than_its_header_is_refused(self, tmp_path: Path, claimed: int) -> None:
        bomb = bytes(10 * LIMIT)
        data = zipped(("bomb", bomb)).replace(struct.pack("<L", len(bomb)), struct.pack("<L", claimed))
        refused(tmp_path, data)
        assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("bomb")) < 10_000

    def test_giant_manifest_is_refused(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("manifest.json", bytes(bundle.MAX_MANIFEST + 1))
        assert "manifest.json has more than 67,108,864 bytes" in refused(tmp_path, file.getvalue(), 2**30)


class TestDamage:
    @pytest.mark.parametrize("data", [b"", b"PK\5\6", b"not a zip" * 100])
    def test_file_that_is_no_archive_is_refused(self, tmp_path: Path, data: bytes) -> None:
        assert "no ZIP archive" in refused(tmp_path, data)

    def test_flipped_bit_is_refused(self, tmp_path: Path) -> None:
        data = bytearray(zipped(("a", b"picture"), method=zipfile.ZIP_STORED))
        data[data.rindex(b"picture")] ^= 1
        assert "damaged" in refused(tmp_path, bytes(data))

    @pytest.mark.parametrize("seed", range(3))
    def test_damaged_bytes_raise_only_bundle_errors(self, tmp_path: Path, seed: int) -> None:
        """Damage raises BundleError, or the files have allowed sizes and places."""
        whole = packed(made(tmp_path / "models"))
        rng = random.Random(seed)
        for i in range(60):
            data = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            folder = tmp_path / str(i)
            folder.mkdir()
            try:
                unpack(folder, bytes(data), 100_000)
            except BundleError:
                continue
            assert sum(p.stat().st_size for p in (folder / "out").rglob("*")) < 200_000
