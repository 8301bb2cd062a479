"""The pages of products: the list, and what a product's page offers to each role."""

from html import unescape

import pytest

from tests.app.conftest import Keyed
from tests.app.support.pages import get_page


def create(keyed: Keyed, name: str) -> None:
    made = keyed.client.post("/v1/products", json={"name": name}, headers=keyed.show("admin"))
    assert made.status_code == 201, made.text


def test_empty_server_leads_to_the_first_product(keyed: Keyed) -> None:
    assert '<a href="/products">Teach your first product</a>' in get_page(keyed, "/", "admin").text
    assert "Teach your first product" not in get_page(keyed, "/").text
    assert 'id="new-product"' in get_page(keyed, "/products", "operator").text
    assert 'id="new-product"' not in get_page(keyed, "/products").text


def test_list_shows_products_before_they_are_taught(keyed: Keyed) -> None:
    create(keyed, "cap")
    shown = unescape(get_page(keyed, "/products").text)
    assert '<a href="/products/cap">cap</a>' in shown
    assert "not taught" in shown
    assert "0 good images, 0 of defects" in shown
    assert "/products/cap" not in get_page(keyed, "/products", "line").text  # its images are of the history
    assert "/products/cap" not in get_page(keyed, "/products", "limited").text


@pytest.mark.parametrize(
    ("role", "teaches", "tries"),
    [("viewer", False, False), ("inspector", False, True), ("operator", True, True)],
)
def test_product_page_offers_what_the_role_may_do(
    keyed: Keyed, role: str, teaches: bool, tries: bool
) -> None:
    create(keyed, "cap")
    response = get_page(keyed, "/products/cap", role)
    assert response.status_code == 200
    for part in ('id="drop"', 'data-act="good"', 'id="delete"', "product_add.js", 'data-start="train"'):
        assert (part in response.text) == teaches, part
    assert ('id="try"' in response.text) == tries


def test_unknown_product_is_an_error_page(keyed: Keyed) -> None:
    response = get_page(keyed, "/products/cap", "admin")
    assert response.status_code == 404
    assert "There is no product &#39;cap&#39;" in response.text
