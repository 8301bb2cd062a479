import json
import re
from pathlib import Path

import pytest

import app.web
from app.web.templating import data

TEMPLATES = Path(app.web.__file__).parent / "templates"


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "a\u2028b", "ä & \"q\" 'r'"])
def test_no_text_ends_the_script_that_it_is_data_of(text: str) -> None:
    written = data({"text": text})
    assert "<" not in written
    assert json.loads(written) == {"text": text}


def test_no_form_reloads_the_page_before_its_script_runs() -> None:
    """Such a form has the method "dialog", which sends nothing outside a dialog; what was typed stays."""
    found = [
        (path.name, tag)
        for path in sorted(TEMPLATES.glob("*.html"))
        for tag in re.findall(r"<form\b[^>]*>", path.read_text())
    ]
    assert len(found) > 10
    assert [(name, tag) for name, tag in found if "method=" not in tag] == []
