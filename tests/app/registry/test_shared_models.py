import multiprocessing
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from app.database.engine import Database, DatabaseError, DatabaseUnavailable
from app.errors.problems import Problem
from app.history.identity import ensure_identity
from app.registry import model_rows, shared_bundles
from app.registry.category_settings import SETTINGS, SettingsFiles
from app.registry.shared_bundles import KEPT_SECONDS, SharedBundles
from app.registry.shared_models import SharedModels
from app.storage.folder_store import FolderStore
from app.storage.store import Store
from app.storage.urls import open_store
from flows.fastflow.backbones.weights import Weights, load_kept_weights, save_weights, weights_digest
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.bundle.bundle import FLOW, MANIFEST, read_manifest
from flows.fastflow.bundle.models_folder import BACKBONES, CALIBRATIONS, ModelConflictError
from tests.flows.fastflow.manifests import edit, made
from tests.support.postgres import Postgres

V1, V2, V3 = (f"2026010{i}T000000-abcdef" for i in (1, 2, 3))


class Servers:
    """Servers beside each other, with one database and one store."""

    def __init__(self, root: Path, url: str, stack: ExitStack) -> None:
        self.root = root
        self.url = url
        self.store: Store = FolderStore(root / "store")
        self.in_use: set[tuple[str, str]] = set()
        self.changed: list[str] = []
        self._stack = stack
        database = self.connect()
        database.upgrade()
        ensure_identity(database)

    def connect(self) -> Database:
        database = Database(self.url)
        self._stack.callback(database.close)
        return database

    def start(self, name: str, max_bytes: int = 2**30) -> SharedModels:
        models = self.root / name
        models.mkdir(exist_ok=True)
        shared = SharedModels(models, self.connect(), SharedBundles(models, self.store, max_bytes))
        shared.open(lambda: self.in_use, self.changed.append)
        return shared

    def publish(self, server: SharedModels, version: str, fit_nll: float = 1.0) -> None:
        """Publish a version from a folder beside the others, as an upload does."""
        folder = made(self.root / "staging" / uuid.uuid4().hex, version=version)
        edit(folder, lambda document: document["metrics"].update(fit_nll=fit_nll))
        server.publish(folder, read_manifest(folder))


@pytest.fixture
def servers(tmp_path: Path, postgres: Postgres) -> Iterator[Servers]:
    with postgres.database() as url, ExitStack() as stack:
        yield Servers(tmp_path, url, stack)


def versions(server: SharedModels) -> list[str]:
    server.refresh()
    return models_folder.versions(server.models, "screw")


def folder_of(server: SharedModels, version: str) -> Path:
    return server.models / "screw" / version


def files_of(server: SharedModels, version: str) -> set[str]:
    return {path.name for path in folder_of(server, version).rglob("*") if path.is_file()}


ALL_FILES = {MANIFEST, FLOW, "0.png", "metrics.jsonl"}


class TestPublish:
    def test_version_appears_on_other_server(self, servers: Servers) -> None:
        a, b = servers.start("a"), servers.start("b")
        servers.publish(a, V1)
        assert files_of(a, V1) == ALL_FILES
        assert versions(b) == [V1]
        assert files_of(b, V1) == {MANIFEST}
        b.fetch(folder_of(b, V1))
        assert bundle.verify(folder_of(b, V1)) == bundle.verify(folder_of(a, V1))

    def test_bundles_are_in_an_object_store(self, servers: Servers, s3_url: str) -> None:
        servers.store = open_store(s3_url, "models")
        a, b = servers.start("a"), servers.start("b")
        servers.publish(a, V1)
        with pytest.raises(ModelConflictError):
            servers.publish(b, V1)
        b.fetch(folder_of(b, V1))
        bundle.verify(folder_of(b, V1))
        b.delete("screw", V1)
        assert list(servers.store.list("screw")) == []

    @pytest.mark.parametrize("step", ["write 1", "write 3", "create", "row"])
    def test_publisher_that_dies_leaves_nothing_visible(
        self, servers: Servers, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, b = servers.start("a"), servers.start("b")
        with monkeypatch.context() as patch:
            fail_at(step, servers.store, patch)
            with pytest.raises(KeyboardInterrupt):
                servers.publish(a, V1)
        assert versions(a) == versions(b) == []
        servers.publish(b, V1)
        assert versions(a) == versions(b) == [V1]
        a.fetch(folder_of(a, V1))
        bundle.verify(folder_of(a, V1))

    def test_one_of_two_publishers_of_a_name_wins(self, servers: Servers) -> None:
        both = servers.start("a"), servers.start("b")

        def publish(i: int) -> bool:
            try:
                servers.publish(both[i], V1, fit_nll=i)
            except ModelConflictError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            won = list(pool.map(publish, range(2)))
        assert sorted(won) == [False, True]
        for server in both:
            assert versions(server) == [V1]
            server.fetch(folder_of(server, V1))
            assert bundle.verify(folder_of(server, V1)).metrics["fit_nll"] == won.index(True)
        assert len(list(servers.store.list("screw"))) == len(ALL_FILES)  # not the loser's

    def test_copy_is_refused_to_commands(self, servers: Servers) -> None:
        a = servers.start("a")
        servers.publish(a, V1)
        for command in (
            lambda: models_folder.activate(a.models, "screw", V1),
            lambda: models_folder.delete(a.models, "screw", V1),
            lambda: made(a.models, version=V2),
        ):
            with pytest.raises(ModelConflictError, match="several servers share"):
                command()


def fail_at(step: str, store: Store, patch: pytest.MonkeyPatch) -> None:
    """Let a publisher end at a step: the nth file, the manifest or the row."""
    action, _, number = step.partition(" ")
    calls = 0

    def fail(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == int(number or 1):
            raise KeyboardInterrupt
        before(*arguments)

    owner, name = (model_rows, "store") if action == "row" else (store, action)
    before = getattr(owner, name)
    patch.setattr(owner, name, fail)


class TestChange:
    def test_activation_follows_on_other_server(self, servers: Servers) -> None:
        a, b = servers.start("a"), servers.start("b")
        servers.publish(a, V1)
        servers.publish(b, V2)
        assert a.activate("screw", V1) is None
        assert b.activate("screw", V2) == V1  # as the table says, not the copy
        servers.changed.clear()
        a.refresh()
        assert servers.changed == ["screw"]
        for server in (a, b):
            assert models_folder.active_version(server.models, "screw") == V2
            assert models_folder.previous_version(server.models, "screw") == V1

    def test_deleted_version_disappears_everywhere(self, servers: Servers) -> None:
        a, b = servers.start("a"), servers.start("b")
        for version in (V1, V2):
            servers.publish(a, version)
        with a.changing("screw") as write:
            write(a.models / "screw" / CALIBRATIONS / V1 / "float32.json", b"{}")
        b.refresh()
        b.activate("screw", V1)
        with pytest.raises(ModelConflictError, match="is active"):
            a.delete("screw", V1)
        b.fetch(folder_of(b, V1))
        b.activate("screw", V2)
        a.delete("screw", V1)
        assert versions(a) == versions(b) == [V2]
        for server in (a, b):
            assert not folder_of(server, V1).exists()
            assert not list(server.models.glob(f"screw/{CALIBRATIONS}/*"))
        assert len(list(servers.store.list("screw"))) == len(ALL_FILES)
        servers.publish(b, V1, fit_nll=2.0)
        assert versions(a) == [V1, V2]

    def test_concurrent_changes_of_settings_are_serialized(self, servers: Servers) -> None:
        both = servers.start("a"), servers.start("b")
        servers.publish(both[0], V1)
        both[1].refresh()
        files = [SettingsFiles(server.models, server.changing) for server in both]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: files[i % 2].change("screw", lambda settings: settings), range(12)))
        for server in both:
            server.refresh()
        assert [one.get("screw").revision for one in files] == [12, 12]

    def test_late_server_keeps_the_newer_change(self, servers: Servers) -> None:
        """A server is held up between the commit of its change and the copy of it on its disk."""
        a, b = servers.start("a"), servers.start("b")
        is_in, go_on = threading.Event(), threading.Event()

        def change() -> None:
            with a.changing("screw") as write:
                write(a.models / "screw" / SETTINGS, b"older")
                is_in.set()
                assert go_on.wait(60)

        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(change)
            assert is_in.wait(60)
            with a._applying:
                go_on.set()
                with b.changing("screw") as write:  # waits for the commit
                    write(b.models / "screw" / SETTINGS, b"newer")
                a.refresh()
            late.result()
        a.refresh()
        assert (a.models / "screw" / SETTINGS).read_bytes() == b"newer"

    def test_lost_database_keeps_the_last_state(self, servers: Servers, postgres: Postgres) -> None:
        a = servers.start("a")
        servers.publish(a, V1)
        a.activate("screw", V1)
        postgres.stop()
        try:
            with pytest.raises(DatabaseUnavailable):
                a.delete("screw", V1)
            with pytest.raises(DatabaseUnavailable):
                a.refresh()
            a.fetch(folder_of(a, V1))
            assert models_folder.active_version(a.models, "screw") == V1
        finally:
            postgres.start()
        servers.publish(a, V2)
        assert versions(servers.start("b")) == [V1, V2]


class TestFetch:
    def test_damaged_file_is_refused_and_fetched_later(self, servers: Servers) -> None:
        a, b = servers.start("a"), servers.start("b")
        servers.publish(a, V1)
        b.refresh()
        [name] = (name for name in servers.store.list("screw") if name.endswith(FLOW))
        good = servers.store.read(name)
        servers.store.write(name, b"damaged")
        with pytest.raises(Problem, match="is damaged") as caught:
            b.fetch(folder_of(b, V1))
        assert caught.value.name == "model-loading"
        assert FLOW not in files_of(b, V1)
        servers.store.write(name, good)
        b.fetch(folder_of(b, V1))
        (folder_of(b, V1) / FLOW).write_bytes(b"damaged")  # the copy, later
        b.fetch(folder_of(b, V1))
        bundle.verify(folder_of(b, V1))

    @pytest.mark.slow
    def test_kill_leaves_no_other_files_in_a_version(self, servers: Servers) -> None:
        servers.publish(servers.start("a"), V1)
        b = servers.start("b")
        store = servers.root / "store"
        child = multiprocessing.get_context("spawn").Process(target=fetch_and_die, args=(b.models, store))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert list(b.models.glob(".*.part/*"))
        b.fetch(folder_of(b, V1))
        bundle.verify(folder_of(b, V1))

    def test_least_recently_used_files_are_dropped(self, servers: Servers) -> None:
        a = servers.start("a")
        for version in (V1, V2, V3):
            servers.publish(a, version)
        one = sum(path.stat().st_size for path in folder_of(a, V1).rglob("[!m]*") if path.is_file())
        b = servers.start("b", max_bytes=2 * one + 10)
        servers.in_use.add(("screw", V1))
        for age, version in enumerate((V1, V2, V3)):
            b.fetch(folder_of(b, version))
            used = folder_of(b, version).stat().st_mtime - KEPT_SECONDS - 10 + age
            os.utime(folder_of(b, version), (used, used))
        b.fetch(folder_of(b, V3))
        assert [files_of(b, version) == ALL_FILES for version in (V1, V2, V3)] == [True, False, True]
        assert versions(b) == [V1, V2, V3]
        b.fetch(folder_of(b, V2))
        bundle.verify(folder_of(b, V2))

    def test_backbone_is_shared(self, servers: Servers) -> None:
        a, b = servers.start("a"), servers.start("b")
        state = {"weight": torch.arange(4.0)}
        weights = Weights("resnet18", "here", weights_digest(state), state, named=True)
        folder = made(servers.root / "staging", version=V1)
        edit(folder, lambda document: document["backbone"].update(weights_sha256=weights.sha256))
        path = save_weights(weights, a.models / BACKBONES)
        a.publish(folder, read_manifest(folder))
        b.refresh()
        b.fetch(folder_of(b, V1))
        assert load_kept_weights("resnet18", b.models / BACKBONES, weights.sha256) is not None
        names = [{file.name for file in (one.models / BACKBONES).iterdir()} for one in (a, b)]
        assert names[0] == names[1] == {path.name, f"{path.name}.named"}
        (servers.root / "store").rename(servers.root / "away")
        b = servers.start("b")
        b.fetch(folder_of(b, V1))  # nothing is missing


def fetch_and_die(models: Path, store: Path) -> None:
    """Fetch a version, and die before the last file has its name."""

    def check(path: Path, sha256: str) -> bool:
        if path.name == "metrics.jsonl":
            os.kill(os.getpid(), signal.SIGKILL)
        return is_good(path, sha256)

    is_good, shared_bundles._has_sha256 = shared_bundles._has_sha256, check
    SharedBundles(models, FolderStore(store), 2**30).fetch(models / "screw" / V1)


class TestOpen:
    def test_restart_continues_the_copy(self, servers: Servers) -> None:
        a, b = servers.start("a"), servers.start("b")
        servers.publish(a, V1)
        servers.publish(a, V2)
        assert versions(b) == [V1, V2]
        a.delete("screw", V1)
        servers.publish(a, V3)
        kept = (folder_of(b, V2) / MANIFEST).stat().st_ino
        assert versions(servers.start("b")) == [V2, V3]
        assert (folder_of(b, V2) / MANIFEST).stat().st_ino == kept
        shutil.rmtree(b.models)
        assert versions(servers.start("b")) == [V2, V3]

    def test_folder_of_one_server_is_adopted_once(
        self, servers: Servers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, version in (("a", V1), ("b", V2)):
            made(servers.root / name, version=version)
            models_folder.activate(servers.root / name, "screw", version)
        for step in ("write 2", "row"):
            with monkeypatch.context() as patch:
                fail_at(step, servers.store, patch)
                with pytest.raises(KeyboardInterrupt):
                    servers.start("a")
        b = servers.root / "b"
        a = servers.start("a")
        assert versions(a) == [V1]
        with pytest.raises(DatabaseError, match="has versions of its own"):
            servers.start("b")
        assert models_folder.versions(b, "screw") == [V2]  # untouched
        c = servers.start("c")
        assert versions(c) == [V1]
        assert models_folder.active_version(c.models, "screw") == V1
        c.fetch(folder_of(c, V1))
        bundle.verify(folder_of(c, V1))

    def test_copy_of_another_installation_is_refused(
        self, servers: Servers, postgres: Postgres, tmp_path: Path
    ) -> None:
        a = servers.start("a")
        servers.publish(a, V1)
        with postgres.database() as url, ExitStack() as stack:
            others = Servers(tmp_path, url, stack)
            with pytest.raises(DatabaseError, match="is a copy of the models of another database"):
                others.start("a")
        assert versions(a) == [V1]


class TestCommands:
    def test_what_a_command_makes_is_published(self, servers: Servers) -> None:
        a, b = servers.start("a"), servers.start("b")
        servers.publish(a, V1)
        with a.changing("screw") as write:
            for name in ("old", "new"):
                write(a.models / "screw" / CALIBRATIONS / V1 / f"{name}.json", b"1")
        b.refresh()
        lent = b.lend(servers.root / "job", "screw", [V1])
        bundle.verify(lent / "screw" / V1)
        made(lent, version=V2)
        with models_folder.lock_category(lent, "screw") as write:
            write(lent / "screw" / CALIBRATIONS / V1 / "new.json", b"3")
        with a.changing("screw") as write:
            write(a.models / "screw" / CALIBRATIONS / V1 / "old.json", b"2")  # meanwhile
        b.take(servers.root / "job", "screw")
        b.take(servers.root / "job", "screw")  # the server was killed before it had recorded that
        assert versions(a) == [V1, V2]
        files = [a.models / "screw" / CALIBRATIONS / V1 / f"{name}.json" for name in ("old", "new")]
        assert [file.read_bytes() for file in files] == [b"2", b"3"]
