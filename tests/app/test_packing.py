"""Archives: what is packed comes out the same; what an enemy sends comes out nowhere."""

import gc
import io
import os
import random
import stat
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from app.packing import Archive, ArchiveError, pack
from flows.fastflow import bundle
from flows.fastflow.bundle import BundleError
from flows.fastflow.manifest import MAX_FILES
from tests.flows.fastflow.manifests import made

LIMIT = 1_000_000


def packed(folder: Path) -> bytes:
    file = io.BytesIO()
    pack(folder, file)
    return file.getvalue()


def archive(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "upload.zip"
    path.write_bytes(data)
    return path


def unpack(tmp_path: Path, data: bytes, limit: int = LIMIT) -> Path:
    with Archive(archive(tmp_path, data), limit) as opened:
        opened.manifest()
        opened.extract(tmp_path / "out" / "bundle")
    return tmp_path / "out" / "bundle"


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, data in (("manifest.json", b"{}"), *members):
            target.writestr(name, data)
    return file.getvalue()


def refused(tmp_path: Path, data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(ArchiveError) as caught:
        unpack(tmp_path, data, limit)
    message = str(caught.value)
    assert str(tmp_path) not in message
    assert "upload.zip" not in message
    return message


class TestPack:
    def test_what_comes_out_is_what_was_packed(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "models")
        out = unpack(tmp_path, packed(folder))
        names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == names
        for name in names:
            assert (out / name).read_bytes() == (folder / name).read_bytes()
            assert stat.S_IMODE((out / name).stat().st_mode) & 0o133 == 0

    def test_the_same_bundle_makes_the_same_archive(self, tmp_path: Path) -> None:
        assert packed(made(tmp_path / "a")) == packed(made(tmp_path / "b"))

    def test_a_damaged_bundle_is_not_packed(self, tmp_path: Path) -> None:
        folder = made(tmp_path)
        (folder / "golden" / "0.png").write_bytes(b"other")
        with pytest.raises(BundleError, match="was changed"):
            packed(folder)

    def test_what_the_zip_command_makes_of_a_directory_is_read_too(self, tmp_path: Path) -> None:
        """It has members for directories."""
        folder = made(tmp_path / "models")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            for path in sorted(folder.rglob("*")):
                target.write(path, path.relative_to(folder).as_posix())
        assert bundle.MANIFEST in os.listdir(unpack(tmp_path, file.getvalue()))  # noqa: PTH208


NAMES = [
    *(
        "/etc/passwd",
        "../x",
        "a/../../x",
        "..",
        ".",
        "a/..",
        "./a",
        "a//b",
        "//a",
        "a/./b",
        ".hidden",
        "a/.b",
    ),
    *("a\\b", "..\\x", "C:\\x", "C:x", "a b", "a\nb", "é", "a" * 256, "-rf", "~/x", "a:b", "a*", "con/"),
]


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_what_is_no_plain_relative_name(self, tmp_path: Path, name: str) -> None:
        message = refused(tmp_path, zipped((zipfile.ZipInfo(name), b"x")))
        assert message.startswith("A member is named")
        assert {p.name for p in tmp_path.iterdir()} == {"upload.zip"}

    def test_a_name_that_zipfile_would_cut_short(self, tmp_path: Path) -> None:
        data = zipped(("golden/0.pngX/../../../x", b"x")).replace(b"golden/0.pngX", b"golden/0.png\0")
        assert refused(tmp_path, data).startswith("A member is named")

    def test_another_name_in_the_member_than_in_the_list(self, tmp_path: Path) -> None:
        data = zipped(("golden/0.png", b"x"))
        first = data.index(b"golden/0.png")
        changed = data[:first] + b"../../../0.p" + data[first + 12 :]
        assert "damaged" in refused(tmp_path, changed)

    @pytest.mark.parametrize("name", ["golden/0.png", "manifest.json"])
    def test_a_member_twice(self, tmp_path: Path, name: str) -> None:
        with pytest.warns(UserWarning, match="Duplicate name"):
            data = zipped((name, b"x"), (name, b"y"), ("other", b"z"))
        assert f"holds '{name}' more than once" in refused(tmp_path, data)

    @pytest.mark.parametrize("order", [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c")])
    def test_a_file_that_is_also_a_directory(self, tmp_path: Path, order: tuple[str, str]) -> None:
        data = zipped(*((name, b"x") for name in order))
        assert "'a' both as a file and as a directory" in refused(tmp_path, data)

    def test_no_manifest_at_the_top(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            target.writestr("20260101T000000-abcdef/manifest.json", b"{}")
        assert "no manifest.json at its top. Make it with" in refused(tmp_path, file.getvalue())


class TestKinds:
    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFSOCK])
    def test_what_is_no_file(self, tmp_path: Path, kind: int) -> None:
        info = zipfile.ZipInfo("golden/0.png")
        info.external_attr = (kind | 0o777) << 16
        assert "is no plain file" in refused(tmp_path, zipped((info, b"/etc/passwd")))

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_compression_that_few_use(self, tmp_path: Path, method: int) -> None:
        assert "in an unusual way" in refused(tmp_path, zipped(("a", b"x" * 100), method=method))

    def test_an_encrypted_one(self, tmp_path: Path) -> None:
        data = bytearray(zipped(("a", b"x")))
        entry = data.rindex(b"PK\1\2")
        data[entry + 8] |= 1
        assert "encrypted" in refused(tmp_path, bytes(data))

    def test_an_archive_in_an_archive_is_a_file_like_any_other(self, tmp_path: Path) -> None:
        inner = zipped(("../../x", b"x"))
        out = unpack(tmp_path, zipped(("report/inner.zip", inner)))
        assert (out / "report" / "inner.zip").read_bytes() == inner
        assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "report"]


class TestSizes:
    def test_as_claimed(self, tmp_path: Path) -> None:
        data = zipped(("bomb", bytes(10 * LIMIT)))
        assert len(data) < LIMIT / 10
        message = refused(tmp_path, data)
        assert message == "Unpacked, the bundle would have more than 1,000,000 bytes, the limit."
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("claimed", [0, 1, 1000])
    def test_more_than_claimed(self, tmp_path: Path, claimed: int) -> None:
        """An archive that claims little is stopped as soon as more comes."""
        bomb = bytes(10 * LIMIT)
        data = zipped(("bomb", bomb)).replace(struct.pack("<L", len(bomb)), struct.pack("<L", claimed))
        refused(tmp_path, data)
        assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*")) <= LIMIT

    def test_together(self, tmp_path: Path) -> None:
        data = zipped(*((str(i), bytes(LIMIT // 4)) for i in range(5)))
        assert "more than 1,000,000 bytes" in refused(tmp_path, data)

    def test_together_where_each_claims_nothing(self, tmp_path: Path) -> None:
        """Members may lie over each other: one kilobyte of bytes is then a thousand members' content."""
        size = LIMIT // 4
        data = zipped(*((str(i), bytes(size)) for i in range(9)))
        data = data.replace(struct.pack("<L", size), struct.pack("<L", 0))
        refused(tmp_path, data)
        assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*")) <= LIMIT

    def test_a_giant_manifest_is_refused_by_what_it_claims(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("manifest.json", bytes(bundle.MAX_MANIFEST + 1))
        assert "manifest.json has more than 67,108,864 bytes" in refused(tmp_path, file.getvalue(), 2**30)

    def test_a_giant_manifest_that_claims_to_be_small(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("manifest.json", bytes(200 * 2**20))
        data = file.getvalue().replace(struct.pack("<L", 200 * 2**20), struct.pack("<L", 100))
        tracemalloc.start()
        refused(tmp_path, data, 2**30)
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
        tracemalloc.stop()

    @pytest.mark.parametrize("count", [MAX_FILES + 1, 600, 70_000])
    def test_more_members_than_anybody_needs(self, tmp_path: Path, count: int) -> None:
        message = refused(tmp_path, zipped(*((str(i), b"") for i in range(count))))
        assert "members" in message

    def test_a_list_of_members_that_would_fill_the_memory(self, tmp_path: Path) -> None:
        """zipfile reads it whole, as long as it claims to be, whatever number of members it claims."""
        entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *([0] * 18)) + b""
        directory = entry * 1_000_000
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, len(directory), 0, 0)
        path = archive(tmp_path, directory + end)
        tracemalloc.start()
        with pytest.raises(ArchiveError, match="more than 512 members"):
            Archive(path, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()

    def test_the_64_bit_form_is_no_way_around(self, tmp_path: Path) -> None:
        data = zipped(("a", b"x"))
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
        assert "64-bit" in refused(tmp_path, data[:-22] + locator + data[-22:])


class TestDamage:
    @pytest.mark.parametrize(
        "data", [b"", b"x", b"PK", b"PK\5\6", b"not a zip" * 100, b"\x1f\x8b" + bytes(99)]
    )
    def test_no_archive(self, tmp_path: Path, data: bytes) -> None:
        assert "no ZIP archive" in refused(tmp_path, data)

    def test_a_comment_at_the_end(self, tmp_path: Path) -> None:
        file = io.BytesIO(zipped(("a", b"x")))
        with zipfile.ZipFile(file, "a") as target:
            target.comment = b"hello"
        assert "ends in a comment" in refused(tmp_path, file.getvalue())

    def test_cut_off_anywhere(self, tmp_path: Path) -> None:
        data = packed(made(tmp_path / "models"))
        for length in range(0, len(data), 41):
            (tmp_path / f"{length}").mkdir()
            refused(tmp_path / f"{length}", data[:length])

    def test_one_bit_of_a_file_changed(self, tmp_path: Path) -> None:
        data = bytearray(zipped(("a", b"picture"), method=zipfile.ZIP_STORED))
        data[data.index(b"picture")] ^= 1
        assert "damaged" in refused(tmp_path, bytes(data))

    @pytest.mark.parametrize("seed", range(40))
    def test_any_bytes_changed(self, tmp_path: Path, seed: int) -> None:
        """It is refused in our words, or what comes out has the sizes and the places that were allowed."""
        whole = packed(made(tmp_path / "models"))
        rng = random.Random(seed)
        for i in range(25):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            folder = tmp_path / str(i)
            folder.mkdir()
            try:
                unpack(folder, bytes(data), 100_000)
            except ArchiveError:
                continue
            assert sum(p.stat().st_size for p in (folder / "out").rglob("*")) < 200_000
            assert all((folder / "out") in p.resolve().parents for p in (folder / "out").rglob("*"))

    def test_a_disk_that_is_full_is_not_the_archives_fault(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = Path.open

        def full(self: Path, mode: str = "r", *rest: object) -> object:
            if mode == "xb":
                raise OSError(28, "No space left on device")
            return opened(self, mode)

        with Archive(archive(tmp_path, zipped(("a", b"x"))), LIMIT) as found:
            monkeypatch.setattr(Path, "open", full)
            with pytest.raises(OSError, match="No space left"):
                found.extract(tmp_path / "out")

    def test_crc_and_length_of_a_deflated_member(self, tmp_path: Path) -> None:
        data = zipped(("a", b"picture" * 100))
        crc = struct.pack("<L", zlib.crc32(b"picture" * 100))
        assert "damaged" in refused(tmp_path, data.replace(crc, bytes(4)))


def test_it_is_closed_when_it_is_refused(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """A warning of an unclosed file would be an error here."""
    refused(tmp_path, zipped((zipfile.ZipInfo("../x"), b"x")))
    gc.collect()
    assert not recwarn.list
