"""`flowgauge train`: options, output and exit code."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import flowgauge
from flows.fastflow.bundle.bundle import read_manifest, verify
from flows.fastflow.bundle.models_folder import active_version, resolve, versions
from training.config.load_config import dump_config, load_config
from training.config.run_config import RunConfig


@pytest.fixture(scope="module")
def yaml_file(tmp_path_factory: pytest.TempPathFactory, tiny_config: RunConfig) -> Path:
    fit = tiny_config.fit.model_copy(update={"epochs": 1})
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(dump_config(tiny_config.model_copy(update={"fit": fit})))
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this file publish; features are computed once."""
    return tmp_path_factory.mktemp("train")


def run(data: Path, root: Path, *options: str) -> Result:
    places = ["--models", str(root / "models"), "--runs", str(root / "runs")]
    which = [] if "--category" in options else ["--category", "tiny"]
    arguments = ["train", "--data", str(data), *which, *places, *options]
    return CliRunner().invoke(flowgauge.app, arguments)


@pytest.fixture(scope="module")
def trained(tiny_data: Path, yaml_file: Path, root: Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 1)  # on more a run says that it could take them
        return run(tiny_data, root, "--config", str(yaml_file))


def test_train_prints_result_and_next_command(trained: Result, tiny_data: Path, root: Path) -> None:
    assert trained.exit_code == 0, trained.output
    lines = trained.stdout.splitlines()
    assert lines[1].startswith("data check: 32 training images; 0 errors, 0 warnings (")
    assert lines[2] == "32 good images of tiny: 22 to fit, 10 held out to calibrate; on cpu"
    stages = [line.removesuffix(" ...") for line in lines if line.endswith(" ...")]
    assert stages == ["data", "features", "fit", "calibrate", "describe", "publish"]
    assert sum(line.startswith("epoch ") for line in lines) == 1
    bundle = resolve(root / "models", "tiny")
    reject = read_manifest(bundle).thresholds["float32"].reject
    assert lines[-5].startswith("it took ")
    assert lines[-4:] == [
        f"threshold {reject:.4f}: certified for 10.00% by 10 held-out images. It rejects at most 9.09% of "
        "good parts on average; with 95 % confidence at most 25.89%.",
        "the lowest rate that 10 images can promise is 9.10%: set it on the model's page of the server, or "
        "train with --target-fpr 0.091 --resume, which fits nothing anew",
        f"published and active: {bundle}",
        f"next: flowgauge evaluate --data {tiny_data} --category tiny --models {root / 'models'}",
    ]
    assert trained.stderr == ""


def test_again_with_resume_reuses_it(trained: Result, tiny_data: Path, yaml_file: Path, root: Path) -> None:
    before = versions(root / "models", "tiny")
    again = run(tiny_data, root, "--config", str(yaml_file), "--resume")
    assert again.exit_code == 0
    [version] = before
    assert again.stdout.startswith(f"tiny was trained before with these settings and images: {version}\n")
    assert f"published and active: {root / 'models/tiny' / version}\n" in again.stdout
    assert "it took" not in again.stdout
    assert again.stdout.splitlines()[-4:] == trained.stdout.splitlines()[-4:]
    assert versions(root / "models", "tiny") == before


def test_several_end_in_a_table_and_one_that_failed_in_exit_1(
    trained: Result, tiny_data: Path, yaml_file: Path, root: Path, tmp_path: Path
) -> None:
    special = tmp_path / "special.yaml"
    special.write_text(yaml_file.read_text() + "categories: {tinny: {seed: 1}, teeny: {seed: 2}}\n")
    both = ["--category", "tiny", "--category", "tinny", "--category", "tiny"]
    result = run(tiny_data, root, *both, "--config", str(special), "--resume")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"note: {special} has settings for 'teeny', which {tiny_data} does not hold"
    assert [line for line in lines if line.startswith("[")] == ["[1/2] tiny", "[2/2] tinny"]
    assert lines[-4].split()[0] == "category"
    version = resolve(root / "models", "tiny").name
    assert lines[-3].split()[0] == "tiny"
    assert lines[-3].split()[-2:] == ["yes", version]
    assert lines[-2].startswith("tinny ")
    assert "failed: there is no category 'tinny' in " in lines[-2]
    assert lines[-1] == f"summary: {root / 'runs' / 'summary.json'}"
    assert result.stderr == ""


def test_all_is_every_category_of_the_folder(
    trained: Result, tiny_data: Path, yaml_file: Path, root: Path
) -> None:
    places = ["--models", str(root / "models"), "--runs", str(root / "runs"), "--config", str(yaml_file)]
    arguments = ["train", "--data", str(tiny_data), "--all", "--resume", *places]
    result = CliRunner().invoke(flowgauge.app, arguments)
    assert result.exit_code == 0, result.output
    assert "[1/1] tiny" in result.stdout
    [row] = json.loads((root / "runs/summary.json").read_text())
    assert (row["category"], row["status"], row["pictures"]) == ("tiny", "reused", 32)


def test_options_override_yaml_and_uncertified_rate_is_said(
    trained: Result, tiny_data: Path, yaml_file: Path, root: Path
) -> None:
    result = run(tiny_data, root, "--config", str(yaml_file), "--seed", "3", "--target-fpr", "0.01")
    assert result.exit_code == 0, result.output
    bundle = resolve(root / "models", "tiny")
    config = load_config(bundle / "report/config.yaml")
    assert (config.seed, config.calibration.target_fpr, config.input_size) == (3, 0.01, (64, 64))
    said = result.stdout.splitlines()[-4]
    assert "NOT certified. 10 held-out images cannot promise 1.00%. It rejects at most 9.09%" in said
    assert not verify(bundle).thresholds["float32"].certified


def test_version_is_published_without_activating_it(
    trained: Result, tiny_data: Path, yaml_file: Path, root: Path
) -> None:
    models = root / "models"
    before = active_version(models, "tiny")
    options = ["--config", str(yaml_file), "--seed", "7", "--no-activate", "--progress=json"]
    told = [json.loads(line) for line in run(tiny_data, root, *options).stdout.splitlines()]
    assert active_version(models, "tiny") == before
    assert [one["event"] for one in told].count("result") == 1
    result = told[-1]
    threshold = read_manifest(models / "tiny" / result["version"]).thresholds["float32"]
    assert result == {
        "event": "result",
        "category": "tiny",
        "version": result["version"],
        "reused": False,
        **threshold.model_dump(),
    }
    shares = [one["share"] for one in told if one["event"] == "progress"]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert told[-2]["text"].startswith(f"next: flowgauge models activate tiny {result['version']} ")
    again = run(tiny_data, root, *options, "--resume")
    assert json.loads(again.stdout.splitlines()[-1]) == {**result, "reused": True}
    assert active_version(models, "tiny") == before


def test_starter_says_what_it_is_and_promises(tiny_data: Path, yaml_file: Path, root: Path) -> None:
    result = run(tiny_data, root, "--config", str(yaml_file), "--starter", "--no-activate")
    assert result.exit_code == 0, result.output
    assert "32 good images of tiny: all to fit a starter and to calibrate it; on cpu\n" in result.stdout
    # l = floor(0.1 * (32 + 1)) = 3 of 33.
    assert ": a starter of 32 images, NOT certified. It is expected to reject at most 9.09% " in result.stdout
    assert "epoch" not in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config", "nothing.yaml"], "error: cannot read the run's file nothing.yaml: No such file"),
        (["--epochs", "0"], "settings with --epochs cannot be used:\n  --epochs: Input should be"),
        (["--device", "meta"], "error: FlowGauge runs on cpu and cuda"),
        (["--data", "nowhere"], "error: there is no data folder nowhere"),
        (["--category", "tinny"], "error: there is no category 'tinny' in "),
    ],
)
def test_error_is_one_line_and_exits_with_1(
    tiny_data: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    result = run(tiny_data, tmp_path, *options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "models").exists()


def test_cluster_without_the_extra_is_refused(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    result = run(tiny_data, tmp_path, "--ray", "auto")
    assert result.exit_code == 1
    assert result.stderr == "error: this needs the extra ray: pip install 'flowgauge[ray]'\n"
    assert not (tmp_path / "models").exists()
