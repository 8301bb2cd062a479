"""The models folder: bundles appear whole or not at all, are found by name, one of them is active."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flows.fastflow import bundle, models_folder
from flows.fastflow.bundle import BundleError
from flows.fastflow.models_folder import UnknownModelError
from tests.flows.fastflow.manifests import made

ROOT = Path(__file__).parents[3]
NO_NAMES = ["", ".", "..", "../x", "a/b", "/etc", "a b", "ä", "-a", "_a", ".a", "a\n", "a" * 65, "a\0", "*"]


class TestPublish:
    def test_others_can_read_it(self, tmp_path: Path) -> None:
        """A temporary directory is private; the server may run as somebody else."""
        path = made(tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert stat.S_IMODE(path.parent.stat().st_mode) & 0o055

    def test_a_version_is_never_overwritten(self, tmp_path: Path) -> None:
        path = made(tmp_path)
        before = (path / "manifest.json").read_bytes()
        with pytest.raises(BundleError, match="exists already; versions are never overwritten"):
            made(tmp_path)
        assert (path / "manifest.json").read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    @pytest.mark.parametrize("category", [*NO_NAMES, "Upper", "backbones", "a.b"])
    def test_a_category_is_a_plain_name(self, tmp_path: Path, category: str) -> None:
        with pytest.raises(BundleError, match="cannot be a category: up to 64 of a-z"):
            made(tmp_path, category=category)
        assert list(tmp_path.rglob("*")) == []

    @pytest.mark.parametrize("version", [*NO_NAMES, "active"])
    def test_so_is_a_version(self, tmp_path: Path, version: str) -> None:
        with pytest.raises(BundleError, match="cannot be a version: up to 64 letters"):
            made(tmp_path, version=version)
        assert list(tmp_path.rglob("*")) == []


class TestInterruption:
    @pytest.mark.parametrize("write", range(4))
    def test_a_full_disk_leaves_nothing(
        self, tmp_path: Path, write: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[Path] = []
        write_bytes = Path.write_bytes

        def full(self: Path, data: bytes) -> int:
            if len(done) == write:
                write_bytes(self, data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            done.append(self)
            return write_bytes(self, data)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            made(tmp_path)
        assert models_folder.categories(tmp_path) == []
        assert list((tmp_path / "screw").iterdir()) == []

    def test_a_kill_at_any_moment_leaves_nothing_visible(self, tmp_path: Path) -> None:
        """The signal that no program sees comes before each write and around the renaming."""
        code = """
import os, signal, sys
from pathlib import Path
from tests.flows.fastflow.manifests import made

def deadly(function, moment):
    def call(*arguments):
        if next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

for moment in range(7):
    child = os.fork()
    if not child:
        moments = iter(range(100))
        Path.write_bytes = deadly(Path.write_bytes, moment)
        Path.chmod = deadly(Path.chmod, moment)
        Path.rename = deadly(Path.rename, moment)
        made(Path(sys.argv[1]) / str(moment))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
"""
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        codes = [int(line) for line in done.stdout.split()]
        # Four files, the mode, the renaming: six moments, and once nobody comes.
        assert codes == [-9] * 6 + [0]
        for moment, code_ in enumerate(codes):
            models = tmp_path / str(moment)
            assert models_folder.categories(models) == (["screw"] if code_ == 0 else [])
            if code_ != 0:
                assert models_folder.versions(models, "screw") == []
                with pytest.raises(UnknownModelError):
                    models_folder.resolve(models, "screw")
                # What was left over is in nobody's way.
                bundle.verify(made(models))


class TestListing:
    def test_categories_and_versions_are_sorted(self, tmp_path: Path) -> None:
        for category, version in [("b", "2"), ("a", "10"), ("b", "1"), ("a", "09")]:
            made(tmp_path, category, version)
        assert models_folder.categories(tmp_path) == ["a", "b"]
        assert models_folder.versions(tmp_path, "a") == ["09", "10"]
        assert models_folder.versions(tmp_path, "b") == ["1", "2"]

    def test_what_is_no_model_is_not_listed(self, tmp_path: Path) -> None:
        made(tmp_path)
        (tmp_path / "backbones" / "v").mkdir(parents=True)
        (tmp_path / "backbones" / "v" / "manifest.json").touch()
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "Upper" / "v").mkdir(parents=True)
        (tmp_path / "Upper" / "v" / "manifest.json").touch()
        (tmp_path / "screw" / "unfinished").mkdir()
        (tmp_path / "screw" / ".x.part").mkdir()
        (tmp_path / "screw" / ".x.part" / "manifest.json").touch()
        assert models_folder.categories(tmp_path) == ["screw"]
        assert models_folder.versions(tmp_path, "screw") == ["20260101T000000-abcdef"]

    @pytest.mark.parametrize("category", [*NO_NAMES, "nut", "backbones"])
    def test_an_unknown_category_has_nothing(self, tmp_path: Path, category: str) -> None:
        assert models_folder.categories(tmp_path / "absent") == []
        assert models_folder.versions(tmp_path, category) == []
        assert models_folder.active_version(tmp_path, category) is None


class TestActive:
    def test_the_active_version_is_the_default(self, tmp_path: Path) -> None:
        one, two = made(tmp_path, version="1"), made(tmp_path, version="2")
        assert models_folder.active_version(tmp_path, "screw") is None
        with pytest.raises(UnknownModelError, match=r"has no active version; there are: \['1', '2'\]"):
            models_folder.resolve(tmp_path, "screw")
        models_folder.activate(tmp_path, "screw", "2")
        assert models_folder.resolve(tmp_path, "screw") == two
        models_folder.activate(tmp_path, "screw", "1")
        assert models_folder.active_version(tmp_path, "screw") == "1"
        assert models_folder.resolve(tmp_path, "screw") == one
        assert models_folder.resolve(tmp_path, "screw", "2") == two
        assert sorted(p.name for p in (tmp_path / "screw").iterdir()) == [".lock", "1", "2", "active"]
        assert stat.S_IMODE((tmp_path / "screw" / "active").stat().st_mode) == 0o644

    def test_an_interrupted_activation_leaves_the_active_version(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made(tmp_path, version="1")
        made(tmp_path, version="2")
        models_folder.activate(tmp_path, "screw", "1")

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            models_folder.activate(tmp_path, "screw", "2")
        assert models_folder.active_version(tmp_path, "screw") == "1"
        assert models_folder.versions(tmp_path, "screw") == ["1", "2"]

    @pytest.mark.parametrize("version", ["3", "", "..", "../screw/1", "active", "1/golden"])
    def test_an_unknown_version_is_not_activated(self, tmp_path: Path, version: str) -> None:
        made(tmp_path, version="1")
        models_folder.activate(tmp_path, "screw", "1")
        if version:
            with pytest.raises(UnknownModelError, match=r"has no version .*; there are: \['1'\]"):
                models_folder.activate(tmp_path, "screw", version)
        assert models_folder.active_version(tmp_path, "screw") == "1"

    @pytest.mark.parametrize(
        "content", [b"2", b"../../etc", b"\xff\xfe", b"1\n2\n3", b"1\n/", b"/", b"", b"active"]
    )
    def test_a_pointer_to_nothing_resolves_to_nothing(self, tmp_path: Path, content: bytes) -> None:
        made(tmp_path, version="1")
        (tmp_path / "screw" / "active").write_bytes(content)
        assert models_folder.active_version(tmp_path, "screw") == ("2" if content == b"2" else None)
        with pytest.raises(
            UnknownModelError, match=r"has no (version '2'|active version); there are: \['1'\]"
        ):
            models_folder.resolve(tmp_path, "screw")
        assert models_folder.resolve(tmp_path, "screw", "1").name == "1"

    @pytest.mark.parametrize("content", [b"1", b"1\n", b" 1 \r\n", b"1\n2", b"1\r\n2\r\n"])
    def test_a_pointer_may_be_written_by_hand(self, tmp_path: Path, content: bytes) -> None:
        made(tmp_path, version="1")
        (tmp_path / "screw" / "active").write_bytes(content)
        assert models_folder.resolve(tmp_path, "screw").name == "1"

    @pytest.mark.parametrize("category", [*NO_NAMES, "nut", "backbones"])
    def test_an_unknown_category_is_an_error_that_names_the_known(
        self, tmp_path: Path, category: str
    ) -> None:
        made(tmp_path)
        with pytest.raises(UnknownModelError, match="there are: screw") as caught:
            models_folder.resolve(tmp_path, category)
        assert repr(category) in str(caught.value)
