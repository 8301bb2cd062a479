import asyncio

import pytest
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPScope, Scope

from app.forwarded import MOST_PROXIES, TrustedProxies, last_addresses

NAME = b"x-forwarded-for"


def told(*values: bytes) -> tuple[str | None, list[tuple[bytes, bytes]]]:
    """Whom an application behind trusted proxies takes a request to come from, and the headers it sees."""
    seen: list[Scope] = []

    async def app(scope: Scope, _: object, __: object) -> None:
        seen.append(scope)

    async def receive() -> ASGIReceiveEvent:
        raise AssertionError

    async def send(_: ASGISendEvent) -> None:
        raise AssertionError

    scope: HTTPScope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"here"), *((NAME, value) for value in values)],
        "client": ("10.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
    }
    asyncio.run(TrustedProxies(app, "10.0.0.0/8")(scope, receive, send))
    (got,) = seen
    assert got["type"] == "http"
    return got["client"][0] if got["client"] else None, list(got["headers"])


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], "10.0.0.1"),
        ([b""], "10.0.0.1"),
        ([b"192.0.2.9"], "192.0.2.9"),
        ([b"192.0.2.9, 192.0.2.6"], "192.0.2.6"),
        ([b"192.0.2.9", b"192.0.2.6,10.0.0.2"], "192.0.2.6"),
        ([b"192.0.2.6:5678 , 10.0.0.2"], "192.0.2.6"),
        ([b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ([b"," * 60_000 + b"192.0.2.6"], "192.0.2.6"),
        ([b"," for _ in range(3000)] + [b"192.0.2.6"], "192.0.2.6"),
    ],
)
def test_the_last_that_is_no_trusted_proxy_is_who_asks(values: list[bytes], client: str) -> None:
    assert told(*values)[0] == client


def test_no_more_than_the_end_of_a_header_is_gone_through() -> None:
    """Every address is of a trusted proxy, so that all of them would be."""
    client, headers = told(b",".join(b"10.%d.%d.1" % (i // 256, i % 256) for i in range(5000)))
    assert client == f"10.{4984 // 256}.{4984 % 256}.1"
    (host, forwarded) = headers
    assert host == (b"host", b"here")
    assert forwarded[1].count(b",") == MOST_PROXIES - 1


def test_what_is_long_but_no_address_is_cut() -> None:
    assert sum(map(len, last_addresses([(NAME, b":" * 60_000)]))) == 1024
    assert last_addresses([(b"via", b"192.0.2.6")]) == []
