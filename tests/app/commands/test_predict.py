import json
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

import flowgauge
from app.client import Client
from app.main import create_app
from app.registry.category_settings import SETTINGS
from app.schemas.access import Role
from app.settings import Settings
from flows.fastflow.bundle import bundle, models_folder
from tests.app.client.conftest import Network, make_key, problem
from tests.app.client.conftest import network as network  # the fixtures
from tests.app.client.conftest import served as served
from tests.app.client.conftest import url as url
from tests.app.support.bundles import copy_version
from tests.app.support.calibrations import good_images
from tests.support.odd_names import ESCAPED, renamed
from tests.support.waiting import eventually

Serve = Callable[[FastAPI], AbstractContextManager[str]]
Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, tiny_images: dict[str, list[bytes]]) -> Path:
    """Six images in folders, and a file that is none."""
    root = tmp_path / "parts"
    for kind in ("good", "defect"):
        (root / kind).mkdir(parents=True)
        for i, data in enumerate(tiny_images[kind][:3]):
            (root / kind / f"{i}.png").write_bytes(data)
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def run(tiny_bundle_store: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    # The servers of these tests are on this machine, which no proxy of the environment knows.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    def invoke(
        *arguments: str | Path,
        models: Path = tiny_bundle_store,
        category: str = "tiny",
        threads: int | None = 1,  # as in all tests
    ) -> Result:
        options = ["predict", "--category", category, "--models", str(models), *map(str, arguments)]
        if threads is not None:
            options += ["--threads", str(threads)]
        return CliRunner().invoke(
            flowgauge.app, options, env={"COLUMNS": "200", "NO_COLOR": "1", "TERMINAL_WIDTH": "200"}
        )

    return invoke


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_folder_is_inspected_as_json_and_rejecting_is_no_failure(run: Run, folder: Path) -> None:
    result = run(folder, "--json")
    assert result.exit_code == 0, result.output
    found = lines(result)
    names = [f"{kind}/{i}.png" for kind in ("defect", "good") for i in range(3)]
    assert [line["file"] for line in found] == names
    assert {line["decision"] for line in found} == {"PASS", "REJECT"}
    assert set(found[0]) == {"file", "score", "decision", "p_value", "version"}


def test_file_is_inspected_as_a_table_and_its_name_is_no_markup(run: Run, folder: Path) -> None:
    shutil.copy(folder / "good" / "0.png", folder / "[red]x[.png")
    result = run(folder / "[red]x[.png")
    assert result.exit_code == 0, result.output
    assert "[red]x[.png" in result.stdout
    assert re.search(r"\d\.\d{4}", result.stdout)
    assert re.search("1 inspected, [01] rejected", result.stdout)


def test_server_keeps_inspections_unless_told_otherwise(run: Run, folder: Path, url: str) -> None:
    def kept() -> int:
        answer = httpx.get(f"{url}/v1/inspections", params={"limit": 500}, trust_env=False)
        return len(answer.json()["inspections"])

    before = kept()
    result = run(folder, "--json", "--url", url, "--no-store")
    assert result.exit_code == 0, result.output
    assert (len(lines(result)), kept()) == (6, before)
    assert len(lines(run(folder, "--json", "--url", url))) == 6
    # A row is written after its answer was sent.
    eventually(lambda: kept() == before + 6)


def test_settings_decide_here_as_on_a_server(run: Run, folder: Path, store: Path, serve_http: Serve) -> None:
    """Rates, a review band, a region, and a calibration of one station."""
    app = create_app(Settings(models=store))
    with serve_http(app) as url, httpx.Client(base_url=f"{url}/v1/models/tiny", trust_env=False) as client:
        rates = {"target_fpr": 0.2, "review_fpr": 0.8, "reason": "x"}
        match = {"If-Match": "*"}
        assert client.patch("/thresholds", json=rates, headers=match).status_code == 200
        corners = [[0, 0], [64, 0], [64, 40], [0, 40]]
        area = {"image": {"width": 64, "height": 64}, "polygons": [corners]}
        assert client.put("/region?station=line-3", json=area).status_code == 200
        files = [("file", (f"{i}.png", data)) for i, data in enumerate(good_images(9))]
        query = "/calibrations?reason=x&station=line-3"
        assert client.post(query, files=files, headers=match, timeout=60).status_code == 201
        seen = []
        for options in ([], ["--station", "line-3"]):
            here = lines(run(folder, "--json", *options, models=store))
            there = lines(run(folder, "--json", "--url", url, *options))
            for ours, theirs in zip(here, there, strict=True):
                assert theirs["score"] == pytest.approx(ours["score"], rel=1e-5)
                assert {**theirs, "score": None} == {**ours, "score": None}
            seen.append([(line["score"], line["p_value"]) for line in here])
            assert len({line["decision"] for line in here}) > 1
        decisions = [line["decision"] for line in lines(run(folder, "--json", models=store))]
        caption = run(folder, models=store).stdout.splitlines()[-1].strip()
        assert decisions.count("REVIEW") > 0
        assert caption == (
            f"{len(decisions)} inspected, {decisions.count('REJECT')} rejected, "
            f"{decisions.count('REVIEW')} to be reviewed"
        )
    assert seen[0] != seen[1]


@pytest.mark.parametrize("remote", [False, True])
def test_version_can_be_named(run: Run, folder: Path, store: Path, remote: bool, serve_http: Serve) -> None:
    copy_version(store, "other")

    def versions(*options: str) -> set[str]:
        return {line["version"] for line in lines(run(folder, "--json", *options, models=store))}

    with serve_http(create_app(Settings(models=store, preload=False))) as url:
        options = ["--url", url] if remote else []
        assert versions("--version", "other", *options) == {"other"}
        assert versions(*options) == {models_folder.active_version(store, "tiny")}
        for version in ("v0", ".."):
            result = run(folder, "--version", version, *options, models=store)
            assert result.exit_code == 2
            assert "--version" in result.stderr
            assert repr(version) in result.stderr


def test_threads_and_device_are_taken(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    assert run(folder / "good", threads=None).exit_code == 0
    assert torch.get_num_threads() == 3  # torch's choice, as a server's
    monkeypatch.setenv("FLOWGAUGE_DEVICE", "cuda:99")
    refused = run(folder / "good")
    assert (refused.exit_code, "cuda:99" in refused.stderr) == (1, True)
    assert run(folder / "good", "--device", "cpu", threads=1).exit_code == 0
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("remote", [False, True])
def test_overlays_are_written(
    run: Run,
    folder: Path,
    url: str,
    remote: bool,
    tmp_path: Path,
    read_png: Callable[[bytes], NDArray[np.uint8]],
) -> None:
    out = tmp_path / "overlays"
    result = run(folder, "--out", out, *(["--url", url] if remote else []))
    assert result.exit_code == 0, result.output
    written = {p.relative_to(out).as_posix() for p in out.rglob("*.png")}
    assert written == {f"{kind}/{i}.png.overlay.png" for kind in ("defect", "good") for i in range(3)}
    assert read_png((out / "good" / "0.png.overlay.png").read_bytes()).shape == (64, 64, 3)


def test_overlays_of_an_earlier_run_are_no_input(run: Run, folder: Path) -> None:
    for out in (folder, folder.parent, folder / "overlays"):
        for _ in range(2):
            assert len(lines(run(folder, "--json", "--out", out))) == 6


@pytest.mark.parametrize(("remote", "as_json"), [(False, True), (True, False)])
def test_failures_are_listed_and_the_others_inspected(
    run: Run, folder: Path, url: str, remote: bool, as_json: bool, tiny_images: dict[str, list[bytes]]
) -> None:
    (folder / "good" / "text.png").write_text("no image")
    (folder / "good" / "cut.png").write_bytes(tiny_images["good"][0][:500])
    result = run(folder, *(["--url", url] if remote else []), *(["--json"] if as_json else []))
    assert result.exit_code == 1
    if as_json:
        found = {line["file"]: line for line in lines(result)}
        assert len(found) == 8
        assert [name for name, line in found.items() if "error" in line] == ["good/cut.png", "good/text.png"]
    else:
        assert "6 inspected" in result.stdout
        assert "good/text.png: " in result.stderr
        assert "good/cut.png: " in result.stderr
    assert "2 of 8 not inspected" in result.stderr


def test_unwritable_overlay_ends_after_printing_results(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "good").write_text("a file where a folder should be")
    result = run(folder, "--out", out)
    assert result.exit_code == 1
    assert "3 inspected" in result.stdout
    assert "error: File exists: " in result.stderr
    assert len(list((out / "defect").iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], "there is no file or folder"),
        (["parts/empty"], "holds no images"),
        (["parts", "--category", "bottel"], "bottel"),
        (["parts", "--models", "absent"], "tiny"),
        (["parts", "--station", "line-3\r"], "--station"),
        (["parts", "--precision", "int8"], "--precision"),
        (["parts", "--no-store"], "without a server nothing is stored"),
        (["parts", "--url", "ftp://localhost"], "--url"),
        (["parts", "--url", "https://127.0.0.1:1", "--ca", "none.pem"], "none.pem"),
        (["parts", "--url", "{url}", "--category", "bottel"], "bottel"),
    ],
)
def test_wrong_usage_is_explained(
    run: Run, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "empty").mkdir()
    result = run(*(argument.format(url=url) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_damaged_model_settings_or_uncalibrated_engine_fail(run: Run, folder: Path, store: Path) -> None:
    uncalibrated = run(folder, "--precision", "bfloat16")
    (store / "tiny" / SETTINGS).write_text("{")
    settings = run(folder, models=store)
    (models_folder.resolve(store, "tiny") / bundle.FLOW).write_bytes(b"damaged")
    model = run(folder, models=store)
    (models_folder.resolve(store, "tiny") / bundle.FLOW).unlink()
    (store / models_folder.COPY).touch()
    copy = run(folder, models=store)
    for result, words in (
        (uncalibrated, "flowgauge calibrate"),
        (settings, "are damaged or cannot be read"),
        (model, "sha256"),
        (copy, "ask it with --url"),
    ):
        assert (result.exit_code, result.stdout) == (1, "")
        assert words in result.stderr


@pytest.mark.parametrize(
    ("refusal", "tried"),
    [
        (None, 3),
        ((502, "<html>nginx</html>"), 3),
        (problem("history-unavailable"), 3),
        (problem("draining"), 3),
        (problem("unauthenticated"), 3),
        (problem("queue-full"), 6),
        (problem("internal"), 6),
        ((413, "<html>nginx</html>"), 6),
    ],
)
def test_rest_is_not_tried_when_none_would_be_inspected(
    run: Run,
    folder: Path,
    network: Network,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    refusal: tuple[int, str] | None,
    tried: int,
) -> None:
    monkeypatch.setattr("app.commands.predict_sources._PATIENCE_SECONDS", 0.0)
    network.refuse(refusal, lambda method, _: method == "POST" and len(network.posted) == 2)
    result = run(folder, "--url", url)
    assert (result.exit_code, network.refused) == (1, tried - 2)
    assert ("3 images were skipped: the server cannot inspect them now" in result.stderr) is (tried == 3)
    assert f"{tried - 2} of 6 not inspected" in result.stderr
    assert "2 inspected" in result.stdout


def test_findings_before_ctrl_c_are_printed(
    run: Run, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = Client.inspect
    asked: list[int] = []

    def counting(self: Client, *arguments: Any, **named: Any) -> Any:
        asked.append(len(asked))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return inspect(self, *arguments, **named)

    monkeypatch.setattr(Client, "inspect", counting)
    result = run(folder, "--url", url)
    assert result.exit_code == 130
    assert "2 inspected" in result.stdout


def test_missing_server_is_explained(run: Run, folder: Path) -> None:
    result = run(folder, "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no answer from http://127.0.0.1:1 ")
    assert len(result.stderr) < 500


def test_key_opens_a_server_and_a_wrong_one_is_explained(
    run: Run, folder: Path, tiny_bundle_store: Path, tmp_path: Path, serve_http: Serve
) -> None:
    settings = Settings(models=tiny_bundle_store, history=tmp_path / "guarded", preload=False)
    key = make_key(settings, Role.LINE)
    with serve_http(create_app(settings)) as url:
        result = run(folder, "--url", url, "--key", key, "--json")
        assert (result.exit_code, len(lines(result))) == (0, 6)
        for wrong in ([], ["--key", "fg_wrong"], ["--key", "a\nb"], ["--key", "ключ"]):
            refused = run(folder, "--url", url, *wrong)
            assert refused.exit_code == 2
            assert "key" in refused.stderr


def test_hidden_files_are_no_images_and_odd_names_are_printed(run: Run, folder: Path) -> None:
    (folder / "good/._0.png").write_bytes(b"a Mac's notes")
    (folder / ".Trash").mkdir()
    (folder / ".Trash/old.png").write_bytes(b"no picture")
    renamed(folder / "good/0.png")
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert f"good/{ESCAPED}" in result.stdout
    assert "6 inspected" in result.stdout
    lines = [json.loads(line) for line in run(folder, "--json").stdout.splitlines()]
    assert f"good/{ESCAPED}" in [line["file"] for line in lines]
