import pytest

from app.middleware.client_address import client_address


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (None, "unknown"),
        # What a trusted proxy passes on.
        (("x\nGET /forged 200", 1), "x?GET?/forged?200"),
        (("fe80::1%a b", 1), "fe80::1%a?b"),
        (("x" * 1000, 1), "x" * 64),
        (("", 1), "unknown"),
    ],
)
def test_address_fits_a_log_line(client: tuple[str, int] | None, address: str) -> None:
    assert client_address({"type": "http", "client": client}) == address
