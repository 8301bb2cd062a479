"""What every kind of store promises."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from app.storage.folder_store import FolderStore
from app.storage.store import Store, StoreUnavailable
from app.storage.urls import open_store, require_conditional_put


@pytest.fixture(params=["folder", "memory", "s3"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """A function that opens the same empty store, as another server does."""
    (tmp_path / "shared").mkdir()
    urls = {"folder": f"file://{tmp_path}/shared", "memory": "memory://plant"}
    url = urls.get(request.param) or request.getfixturevalue("s3_url")
    yield lambda: open_store(url)
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(open_again: Callable[[], Store]) -> Store:
    return open_again()


def test_written_file_is_read_by_another(store: Store, open_again: Callable[[], Store]) -> None:
    other = open_again()
    for data in (b"first", b"second, longer", b"second, longer", b""):
        store.write("maps/ef/a.npy", data)
        assert other.read("maps/ef/a.npy") == data
        assert other.exists("maps/ef/a.npy")


def test_missing_file_is_told(store: Store) -> None:
    store.write("maps/ef/a.npy", b"a")
    for name in ("a.npy", "maps/ef", "maps/ef/b.npy"):
        assert not store.exists(name)
        with pytest.raises(FileNotFoundError if name != "maps/ef" else OSError):
            store.read(name)
    store.delete("maps/ef/b.npy")


def test_deleted_file_is_gone(store: Store, open_again: Callable[[], Store]) -> None:
    store.write("maps/ef/a.npy", b"a")
    assert [*open_again().list("maps")] == ["maps/ef/a.npy"]
    store.delete("maps/ef/a.npy")
    assert not store.exists("maps/ef/a.npy")
    assert [*store.list("maps")] == []


def test_list_yields_names_below_a_folder(store: Store, open_again: Callable[[], Store]) -> None:
    other = open_again()
    assert [*other.list("maps")] == []
    names = ["maps/a", "maps/ef/b", "maps/ef/c d.npy", "mapsx/e"]
    for name in names:
        store.write(name, b"x")
    assert sorted(other.list("maps")) == names[:3]
    assert sorted(other.list("")) == names
    assert [*other.folders("maps")] == ["maps/ef"]
    assert [*other.folders("nothing")] == []


def test_file_is_created_once(store: Store, open_again: Callable[[], Store]) -> None:
    store.create("models/m.json", b"first")
    for other in (store, open_again()):
        with pytest.raises(FileExistsError):
            other.create("models/m.json", b"second")
    assert store.read("models/m.json") == b"first"


def test_one_of_racing_creators_wins(open_again: Callable[[], Store], request: pytest.FixtureRequest) -> None:
    if "memory" in request.node.name:
        pytest.skip("fsspec's memory is of one process, and looks before it writes")
    stores = [open_again() for _ in range(2)]

    def create(number: int) -> bool:
        try:
            stores[number % len(stores)].create("models/m.json", b"%d" % number)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        won = [*threads.map(create, range(16))]
    assert stores[0].read("models/m.json") == b"%d" % won.index(True)
    assert sum(won) == 1


def test_threads_share_a_store(store: Store) -> None:
    def work(number: int) -> bytes:
        store.write(f"a/{number}", b"%d" % number)
        return store.read(f"a/{number}")

    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(work, range(32))] == [b"%d" % number for number in range(32)]


def test_stores_create_a_file_once_by_themselves(store: Store) -> None:
    require_conditional_put(store)
    assert [*store.list("")] == []


def test_interrupted_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    store.write("a", b"old")
    for action, step in ((store.write, "pathlib.Path.replace"), (store.create, "os.link")):
        with monkeypatch.context() as patched:
            patched.setattr(step, _fail)
            with pytest.raises(OSError, match="full"):
                action("a", b"new")
    assert store.read("a") == b"old"
    assert [*store.list("")] == ["a"]


def test_absent_share_is_no_empty_one(tmp_path: Path) -> None:
    share = tmp_path / "share"
    store = open_store(f"file://{share}", "models")
    uses: list[Callable[[], object]] = [
        lambda: store.read("a"),
        lambda: store.write("a", b"a"),
        lambda: store.create("a", b"a"),
        lambda: store.delete("a"),
    ]
    for use in uses:
        with pytest.raises(StoreUnavailable, match="mount the share"):
            use()
    assert not share.exists()
    share.mkdir()
    store.create("a", b"a")
    assert store.read("a") == b"a"


def _fail(*_: object) -> None:
    raise OSError("full")
