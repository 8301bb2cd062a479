"""How the pages say that FlowGauge is installed, and which files they name to Docker."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]
COMPOSE = [ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"]


def text(*paths: Path) -> str:
    """What files say, without line breaks that a sentence may have anywhere."""
    return "\n".join(re.sub(r"\s+", " ", path.read_text()) for path in paths)


def test_flowgauge_is_never_installed_by_its_name() -> None:
    """The name is on no package index: whoever registers it there would be installed."""
    commands = re.findall(r"pip (?:install|download|wheel)\b[^`\n]*", "\n".join(p.read_text() for p in PAGES))
    assert len(commands) > 10
    by_name = [one for one in commands if re.search(r"(?<![\w./-])flowgauge(?![\w/-])", one)]
    assert by_name == []


def test_what_is_installed_from_the_checkout_are_extras_that_there_are() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    found = re.findall(r"'\.\[([a-z,]+)\]'", "\n".join(path.read_text() for path in PAGES))
    assert found
    for extras in found:
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_a_file_of_compose_that_is_added_does_not_leave_the_override_out() -> None:
    pages = text(ROOT / "README.md", ROOT / "docs" / "operating.md", *COMPOSE)
    assert "-f docker-compose" not in pages
    named = re.findall(r"COMPOSE_FILE=([\w.:-]+\.yml)", pages)
    assert len(named) == 3
    for name in {name for names in named for name in names.split(":")} - {"docker-compose.override.yml"}:
        assert (ROOT / name).is_file()
    for page in (ROOT / "README.md", ROOT / "docs" / "operating.md", COMPOSE[0]):
        assert "docker-compose.override.yml" in page.read_text()
