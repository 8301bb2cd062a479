"""The reference pages that are generated from the code."""

import pytest

from docs.generate import PAGES, REFERENCE


@pytest.mark.parametrize("name", PAGES)
def test_reference_page_is_current(name: str) -> None:
    current = (REFERENCE / name).read_text() == PAGES[name]()
    assert current, f"docs/reference/{name} differs from the code; run `make reference` and commit the page"
