"""The install and Docker commands of the documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMPOSE = [ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.py")]
TEXT = "\n".join(page.read_text() for page in PAGES)


def test_flowgauge_is_never_installed_by_name() -> None:
    """The name is on no package index: whoever registers it there would be installed."""
    commands = re.findall(r"pip (?:install|download|wheel)\b[^`\n]*", TEXT)
    assert commands
    by_name = [command for command in commands if re.search(r"(?<![\w./-])flowgauge(?![\w/-])", command)]
    assert by_name == []


def test_documented_extras_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    found = re.findall(r"['\"]\.\[([a-z,]+)\]['\"]", TEXT)
    assert found
    for extras in found:
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_documented_make_targets_exist() -> None:
    targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    named = re.findall(r"(?:`|^ {4}|^\$ )make ([a-z][a-z-]*)", TEXT, re.MULTILINE)
    assert "test" in named
    assert sorted(set(named) - set(targets)) == []


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split()
    listed = re.findall(r"echo '  make ([a-z-]+) ", makefile)
    assert sorted(listed) == sorted(set(targets) - {"help"})


def test_second_compose_file_keeps_the_override() -> None:
    """With -f, Compose leaves docker-compose.override.yml out; COMPOSE_FILE can name it."""
    text = re.sub(r"\s+", " ", TEXT + "".join(path.read_text() for path in COMPOSE))
    assert "-f docker-compose" not in text
    named = {name for files in re.findall(r"COMPOSE_FILE=([\w.:-]+\.yml)", text) for name in files.split(":")}
    assert "docker-compose.override.yml" in named
    for name in named - {"docker-compose.override.yml"}:
        assert (ROOT / name).is_file(), name
