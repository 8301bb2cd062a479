import pytest

from app.middleware import login_redirect


@pytest.mark.parametrize(
    "address",
    [
        *("/", "/?category=a&station=b%20c", "/inspections/abc?x=1", "/search?part_id=P-1", "/audit"),
        *("/products", "/products/tiny", "/models/tiny", "/report", "/scores", "/admin", "/admin/log"),
    ],
)
def test_page_is_redirected_to_the_login(address: str) -> None:
    assert login_redirect.local(address) == address


@pytest.mark.parametrize(
    "address",
    [
        None,
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "javascript:alert(1)",
        "/v1/keys",
        "/login?next=/",
        "/\t/evil.example",
        "/inspect\r\nX: y",
        "http:/inspect",
        "//[",
        "http://[",
    ],
)
def test_other_requests_are_not_redirected(address: str | None) -> None:
    assert login_redirect.local(address) == "/"
