"""Every command of the first tutorial, run in order on a small set of images."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flowgauge
from tests.docs.console import ROOT, Step, assert_output, console_steps, run_command
from tests.support.server import Server
from training.config.load_config import dump_config
from training.config.run_config import RunConfig

PAGE = ROOT / "docs" / "tutorials" / "first-model.md"


@pytest.fixture
def folder(
    tmp_path: Path, tiny_data: Path, tiny_images: dict[str, list[bytes]], tiny_config: RunConfig
) -> Path:
    """The folder of a user who has copied images into it, and settings for a quick training."""
    (tmp_path / "images" / "bottle").mkdir(parents=True)
    (tmp_path / "try").mkdir()
    for image in (tiny_data / "tiny" / "train" / "good").iterdir():
        shutil.copy(image, tmp_path / "images" / "bottle" / f"{image.stem}.jpg")
    for number, data in enumerate(tiny_images["defect"]):
        (tmp_path / "try" / f"broken{number or ''}.jpg").write_bytes(data)
    (tmp_path / "try" / "good.jpg").write_bytes(tiny_images["good"][1])
    rate = tiny_config.calibration.model_copy(update={"target_fpr": 0.01})  # the default, as on the page
    (tmp_path / "run.yaml").write_text(dump_config(tiny_config.model_copy(update={"calibration": rate})))
    return tmp_path


def run(step: Step, folder: Path) -> None:
    """Run a step with quick settings, and compare its output where it has one."""
    command = step.command.replace("flowgauge train", "flowgauge train --config run.yaml")
    printed = run_command(command, folder)
    if step.output:
        assert_output(step, printed)


def test_commands_of_the_page_work(folder: Path) -> None:
    _, _, doctor, *steps = console_steps(PAGE)  # the first two install
    run(doctor, folder)
    [serving] = [i for i, step in enumerate(steps) if step.command == "flowgauge serve"]
    for step in steps[:serving]:
        run(step, folder)
    assert (folder / "overlays" / "broken.jpg.overlay.png").is_file()
    asking, measuring = steps[serving + 1 : serving + 2], steps[serving + 2 :]
    with Server(folder / "models", folder / "work") as server:
        for step in asking:
            run(Step(step.command.replace("http://127.0.0.1:8000", server.url), step.output), folder)
    greeting = server.log.read_text().replace(f"{folder}/", "").replace(str(server.port), "8000")
    assert_output(steps[serving], greeting)
    for step in measuring:
        if "train" in step.command:  # the page tells the reader to copy them
            shutil.copytree(folder / "try", folder / "images" / "bottle" / "broken", dirs_exist_ok=True)
            (folder / "images" / "bottle" / "broken" / "good.jpg").unlink()
        run(step, folder)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "data check --data images --category botle",
            "there is no category 'botle' in images; found: bottle",
        ),
        ("train --data images/bottle --category bottle", "images/bottle holds one category itself"),
        ("train --data . --category images", "images has none of the known layouts"),
        ("serve --models nowhere", "the models folder"),
    ],
)
def test_mistakes_get_the_messages_of_the_page(
    command: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in PAGE.read_text()
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(flowgauge.app, command.split())
    assert result.exit_code != 0
    assert message in result.output
