"""`flowgauge models`, run as a command: versions looked at, checked, carried and switched."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner, Result

import flowgauge
from app.auth.audit import Audit
from app.database.engine import Database
from app.main import create_app
from app.registry.category_settings import SETTINGS
from app.schemas.access import AuditEntry
from app.settings import Settings
from flows.fastflow.bundle import bundle, models_folder
from tests.app.conftest import Serve
from tests.app.support.bundles import copy_version, list_folder
from tests.app.support.models_folders import damage_bundle
from tests.conftest import picture, png

Run = Callable[..., Result]
Entries = Callable[[], list[AuditEntry]]


@pytest.fixture
def run(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command on the models folder, in a folder where it may leave files."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FLOWGAUGE_MODELS", str(store))
    return lambda *arguments: CliRunner().invoke(flowgauge.app, ["models", *arguments])


@pytest.fixture
def entries(tmp_path: Path) -> Iterator[Entries]:
    """A server's history is here; gives what its audit log has of how acts ended, the earliest first."""
    (tmp_path / "history").mkdir()
    database = Database(Settings().database_url)
    database.upgrade()
    yield lambda: ended(Audit(database).page(100)[::-1])
    database.close()


def ended(entries: list[AuditEntry]) -> list[AuditEntry]:
    begun = {entry.number for entry in entries if entry.outcome == "begun"}
    ends = [entry for entry in entries if entry.outcome != "begun"]
    assert {entry.detail.pop("begun") for entry in ends} == begun
    return ends


def said(result: Result) -> str:
    """What a command says that did it."""
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def failed(result: Result) -> str:
    """The line of one that did not."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


class TestList:
    def test_marks_what_serves_and_what_did(self, run: Run, store: Path, first: str) -> None:
        copy_version(store, "v1", "nut")
        copy_version(store, "x9")
        models_folder.activate(store, "tiny", "x9")
        assert said(run("list")) == f"nut/v1\ntiny/{first}  previous\ntiny/x9  active\n"

    def test_for_programs(self, run: Run, store: Path, first: str) -> None:
        copy_version(store, "v1", "nut")
        models_folder.activate(store, "tiny", str(copy_version(store, "x9").name))
        assert json.loads(said(run("list", "--json"))) == [
            {"category": "nut", "active": None, "previous": None, "versions": ["v1"]},
            {"category": "tiny", "active": "x9", "previous": first, "versions": [first, "x9"]},
        ]


class TestVerify:
    def test_all_or_those_that_are_named(self, run: Run, store: Path, first: str) -> None:
        copy_version(store, "v1", "nut")
        copy_version(store, "x9")
        assert said(run("verify")) == f"nut/v1  good\ntiny/{first}  good\ntiny/x9  good\n"
        assert said(run("verify", "tiny")) == f"tiny/{first}  good\ntiny/x9  good\n"
        assert said(run("verify", "tiny", "x9")) == "tiny/x9  good\n"

    def test_one_that_a_server_would_refuse(self, run: Run, store: Path, first: str) -> None:
        damage_bundle(copy_version(store, "x9"))
        result = run("verify")
        assert result.exit_code == 1
        good, bad = result.stdout.split("\n", 1)
        assert good == f"tiny/{first}  good"
        assert bad.startswith("tiny/x9  ")
        assert "flow.safetensors was changed: its sha256 is not the manifest's" in bad
        assert result.stderr == "1 of 2 would be refused.\n"


class TestPack:
    def test_what_is_packed_here_is_uploaded_and_serves_there(
        self, run: Run, store: Path, serve_http: Serve, tmp_path: Path
    ) -> None:
        copy_version(store, "x9")
        assert said(run("pack", "tiny", "x9")) == "tiny-x9.zip\n"
        models_folder.delete(store, "tiny", "x9")
        settings = Settings(history=tmp_path / "history")
        with (
            serve_http(create_app(settings)) as url,
            httpx2.Client(base_url=url, trust_env=False, timeout=60) as client,
        ):
            data = Path("tiny-x9.zip").read_bytes()
            headers = {"Content-Type": "application/zip"}
            response = client.post("/v1/models/tiny/versions", content=data, headers=headers)
            assert response.status_code == 201, response.text
            assert said(run("verify", "tiny", "x9")) == "tiny/x9  good\n"
            # A running server sees what the command changes.
            assert said(run("activate", "tiny", "x9")) == "tiny/x9 is active.\n"
            assert until_serves(client, "x9") == bundle.manifest_sha256(
                store / "tiny" / "x9", bundle.read_manifest(store / "tiny" / "x9")
            )
            entries = client.get("/v1/audit").json()["entries"]
            done = [(e["action"], e["actor"]) for e in entries if e["outcome"] == "done"]
            assert ("model.activate", "command line") in done
            assert ("model.upload", "anonymous") in done

    def test_the_active_one_by_default_into_a_file_that_is_named(
        self, run: Run, first: str, tmp_path: Path
    ) -> None:
        target = tmp_path / "stick" / "bundle.zip"
        assert said(run("pack", "tiny")) == f"tiny-{first}.zip\n"
        assert said(run("pack", "tiny", "--output", str(target))) == f"{target}\n"
        assert target.read_bytes() == Path(f"tiny-{first}.zip").read_bytes()
        target.write_bytes(b"an older one")
        run("pack", "tiny", "-o", str(target))
        assert target.read_bytes() == Path(f"tiny-{first}.zip").read_bytes()
        assert [p.name for p in target.parent.iterdir()] == ["bundle.zip"]
        assert said(run("pack", "tiny", "-o", str(target.parent))) == f"{target.parent}/tiny-{first}.zip\n"


@pytest.mark.usefixtures("entries")
class TestActivate:
    def test_calibrations_of_the_previous_version_are_reported(
        self, run: Run, store: Path, first: str
    ) -> None:
        copy_version(store, "x9")
        renewals = models_folder.calibrations_folder(store / "tiny" / first)
        renewals.mkdir(parents=True)
        (renewals / "float32.json").write_text("{}")
        active, lost = said(run("activate", "tiny", "x9")).splitlines()
        assert active == "tiny/x9 is active."
        assert lost == (
            f"x9 lacks 1 of the calibrations of {first} for the line and its stations: make them with "
            "flowgauge calibrate --category tiny"
        )
        for version in ("x9", first, first):
            assert said(run("activate", "tiny", version)) == f"tiny/{version} is active.\n"
        shutil.copytree(renewals, models_folder.calibrations_folder(store / "tiny" / "x9"))
        assert said(run("rollback", "tiny")) == "tiny/x9 is active.\n"

    def test_one_that_a_server_would_refuse(self, run: Run, store: Path, first: str) -> None:
        damage_bundle(copy_version(store, "x9"))
        assert "flow.safetensors was changed" in failed(run("activate", "tiny", "x9"))
        assert models_folder.active_version(store, "tiny") == first
        assert models_folder.previous_version(store, "tiny") is None

    def test_one_that_what_is_set_does_not_fit(self, run: Run, store: Path, first: str) -> None:
        copy_version(store, "x9")
        (store / "tiny" / SETTINGS).write_text('{"review_fpr": 0.05}')
        assert "must be more than target_fpr, 0.1" in failed(run("activate", "tiny", "x9"))
        assert models_folder.active_version(store, "tiny") == first

    def test_back_from_one_whose_folder_is_gone(self, run: Run, store: Path, first: str) -> None:
        models_folder.activate(store, "tiny", copy_version(store, "x9").name)
        shutil.rmtree(store / "tiny" / "x9")
        assert said(run("rollback", "tiny")) == f"tiny/{first} is active.\n"
        assert models_folder.active_version(store, "tiny") == first
        # To what is gone there is no way.
        assert "no version of 'tiny' served before" in failed(run("rollback", "tiny"))


REFUSED = [
    (["activate", "tiny", "v9"], "has no version 'v9'"),
    (["rollback", "nut"], "no model of category 'nut'"),
    (["rollback", "tiny"], "no version of 'tiny' served before the active one, or it was deleted"),
    (["delete", "tiny", "../tiny"], "has no version '../tiny'"),
]


class TestAudit:
    @pytest.mark.parametrize(("arguments", "reason"), REFUSED)
    def test_what_was_refused(
        self, run: Run, store: Path, arguments: list[str], reason: str, entries: Entries
    ) -> None:
        before = list_folder(store)
        line = failed(run(*arguments))
        assert reason in line
        [entry] = entries()
        assert (entry.action, entry.target) == (f"model.{arguments[0]}", "/".join(arguments[1:]))
        assert (entry.outcome, entry.actor) == ("refused", "command line")
        assert f"error: {entry.detail['refusal']}" == line
        assert list_folder(store) == before

    def test_what_was_done(self, run: Run, store: Path, first: str, entries: Entries) -> None:
        copy_version(store, "x9")
        for arguments in (["activate", "tiny", "x9"], ["rollback", "tiny"], ["delete", "tiny", "x9"]):
            said(run(*arguments))
        assert [(e.action, e.target, e.outcome, e.detail) for e in entries()] == [
            ("model.activate", "tiny/x9", "done", {"previous": first}),
            ("model.rollback", "tiny", "done", {"active": first, "previous": "x9"}),
            ("model.delete", "tiny/x9", "done", {}),
        ]

    def test_without_a_server_here_it_is_said_and_no_history_is_made(
        self, run: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FLOWGAUGE_ENGINE", "auto")  # OpenVINO keeps what it converts for a server
        copy_version(store, "x9")
        for arguments, code in ((("activate", "tiny", "x9"), 0), (("delete", "tiny", "x9"), 1)):
            result = run(*arguments)
            assert result.exit_code == code
            first, *rest = result.stderr.splitlines()
            assert first.startswith(
                f"There is no audit log in {tmp_path / 'history'}, so this action is not logged"
            )
            assert len(rest) == code
        assert not (tmp_path / "history").exists()


def until_serves(client: httpx2.Client, version: str) -> str:
    """Ask until a version answers, as a line would; gives its sha256."""
    for _ in range(500):
        response = client.post("/v1/models/tiny/predict?store=false", content=png(picture(1)))
        model = response.json()["model"]
        if model["version"] == version:
            sha256: str = model["sha256"]
            return sha256
    raise AssertionError(f"{version} never served")


class TestExport:
    @pytest.mark.slow  # the graph itself is tested in tests/flows/fastflow/export/test_onnx.py
    def test_writes_a_graph_under_a_name_of_its_own(self, run: Run, first: str) -> None:
        pytest.importorskip("onnxscript")
        assert said(run("export", "tiny")) == f"tiny-{first}.onnx\n"
        assert [path.name for path in Path().iterdir()] == [f"tiny-{first}.onnx"]
