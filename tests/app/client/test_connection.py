from pathlib import Path

import pytest

from app.client.connection import AddressError, http_arguments


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://localhost", "http://", "http://a:b:c", "nonsense", "http:///v1"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(AddressError) as caught:
        http_arguments(url, None, None, 1)
    assert caught.value.what == "url"


@pytest.mark.parametrize("key", ["a\nb", "ключ", "\x7f"])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(AddressError) as caught:
        http_arguments("http://h", key, None, 1)
    assert caught.value.what == "key"
    assert key not in str(caught.value)


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate")
    for path in (tmp_path / "absent.pem", tmp_path / "empty.pem"):
        with pytest.raises(AddressError, match=path.name) as caught:
            http_arguments("https://h", None, path, 1)
        assert caught.value.what == "ca"


@pytest.mark.parametrize(("key", "headers"), [(None, {}), ("  ", {}), (" fg_1 \n", {"X-API-Key": "fg_1"})])
def test_the_key_goes_with_every_request(key: str | None, headers: dict[str, str]) -> None:
    assert http_arguments("http://h/", key, None, 1)["headers"] == headers


@pytest.mark.parametrize(
    ("host", "proxies"), [("127.0.0.1", False), ("localhost", False), ("[::1]", False), ("line3.lan", True)]
)
def test_proxies_are_for_other_machines(host: str, proxies: bool) -> None:
    found = http_arguments(f"http://{host}:8000/", None, None, 1)
    assert found["trust_env"] == proxies
    assert found["base_url"] == f"http://{host}:8000"
