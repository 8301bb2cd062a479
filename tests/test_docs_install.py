"""Where links of the pages lead, how they say that FlowGauge is installed, and which files Docker gets."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    for link in re.findall(r"\[[^\]]+\]\((?!\w+:)([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in anchors, link
