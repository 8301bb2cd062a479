"""README.md: short, and true."""

import importlib.util
import json
import re
from pathlib import Path

import yaml
from starlette.testclient import TestClient

from tests.app.conftest import service as service  # the fixture
from tests.docs.console import ROOT, console_steps
from tests.docs.json_shape import shape

PAGE = ROOT / "README.md"
TEXT = PAGE.read_text()


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_readme_is_short() -> None:
    assert TEXT.count("\n") <= 130
    assert len(TEXT.split()) <= 1300


def test_own_camera_follows_the_tutorials() -> None:
    """The tests of the tutorials run these commands."""
    steps = [
        step.command
        for name in ("first-model", "camera-to-plc")
        for step in console_steps(ROOT / "docs" / "tutorials" / f"{name}.md")
    ]
    commands = re.findall(
        r"(?m)^ {4}(flowgauge [^#\n]*?) *(?:#.*)?$", section("Your own camera to the first decision")
    )
    assert len(commands) == 5
    for command in commands:
        assert any(step.startswith(command) for step in steps), command


def test_answer_has_the_shape_of_a_real_one(service: TestClient, tiny_images: dict[str, list[bytes]]) -> None:
    [text] = re.findall(r"(?ms)^ {4}(\{.*?\})\n\n", section("Ask the server"))
    shown = json.loads(text)
    fields = {"part_id": "4711", "station": "line-3"}
    files = {"file": ("part.png", tiny_images["defect"][0])}
    answer = service.post("/v1/models/tiny/predict", data=fields, files=files).json()
    assert list(shown) == list(answer)
    assert shown["timing_ms"] == "…"
    assert shape(shown | {"timing_ms": 0}) == shape(answer | {"timing_ms": 0})
    assert shown["decision"] == answer["decision"] == "REJECT"


def test_compose_commands_name_services() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    named = re.findall(r"docker compose (?:run --rm|up -d) (\w+)", section("In Docker"))
    assert named == ["train", "serve", "serve"]
    assert set(named) <= set(services)


def test_table_of_figures_has_a_command_in_every_row() -> None:
    rows = [line for line in section("What was measured").splitlines() if line.startswith("| ")][1:]
    assert 1 <= len(rows) <= 8
    for row in rows:
        command = re.findall(r"`([^`]+)`", row.split(" | ")[-1])[0]
        program, *words = command.split()
        if program == "python":
            assert words[0] == "-m"
            spec = importlib.util.find_spec(words[1])
            assert spec is not None, command
            assert_options(spec.origin, words[2:])


def assert_options(origin: str | None, words: list[str]) -> None:
    """Options and parts stand in a benchmark's source; to start it would take seconds."""
    assert origin is not None
    source = "".join(path.read_text() for path in [Path(origin), *Path(origin).parent.glob("*.py")])
    for word in words:
        if word.startswith("--"):
            assert f'"{word}"' in source, word
    if words and words[0].isalpha():
        assert f'"{words[0]}"' in source, words[0]


def test_images_exist_and_are_small() -> None:
    images = re.findall(r"(?:\]\(|<img src=\")([\w/.]+\.(?:png|jpg))", TEXT)
    assert len(images) == 2
    licences = (ROOT / "docs" / "images" / "README.md").read_text()
    for image in images:
        assert (ROOT / image).stat().st_size < 600_000
        assert f"| {Path(image).name} |" in licences
