import pytest

from app.credentials import Credential, find
from app.problems import Problem

KEY = f"fg_{'0' * 16}_{'s' * 43}"
COOKIE = b"flowgauge_session"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([(b"x-api-key", KEY.encode())], Credential("key", KEY)),
        ([(b"x-api-key", b"  " + KEY.encode() + b" ")], Credential("key", KEY)),
        ([(b"authorization", b"Bearer " + KEY.encode())], Credential("key", KEY)),
        ([(b"authorization", b"bEARER   " + KEY.encode())], Credential("key", KEY)),
        ([(b"authorization", b"Basic dXNlcjpwYXNz")], None),
        ([(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-api-key", KEY.encode())], Credential("key", KEY)),
        ([(b"authorization", b"Bearer")], Credential("key", "")),
        ([(b"x-api-key", b"")], Credential("key", "")),
        ([(b"x-api-key", b"\xff\xfe")], Credential("key", "ÿþ")),
        ([(b"cookie", COOKIE + b"=abc")], Credential("session", "abc")),
        ([(b"cookie", b"a=b; " + COOKIE + b"=abc;c=d")], Credential("session", "abc")),
        ([(b"cookie", b"a=b; x" + COOKIE + b"=abc; " + COOKIE + b"x=abc")], None),
        ([(b"cookie", b"a=b;;;=; =x")], None),
        # A key goes before a cookie, even an empty one: nothing falls back to what a browser sends unasked.
        ([(b"cookie", COOKIE + b"=abc"), (b"x-api-key", KEY.encode())], Credential("key", KEY)),
        ([(b"x-api-key", b""), (b"cookie", COOKIE + b"=abc")], Credential("key", "")),
    ],
)
def test_finds_what_a_request_shows(headers: list[tuple[bytes, bytes]], found: Credential | None) -> None:
    assert find(headers) == found


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [(b"x-api-key", b"a"), (b"x-api-key", b"a")],
        [(b"x-api-key", b"a"), (b"authorization", b"Bearer b")],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        [(b"x-api-key", b""), (b"x-api-key", b"b")],
        [(b"cookie", COOKIE + b"=a; " + COOKIE + b"=b")],
        [(b"cookie", COOKIE + b"=a"), (b"cookie", COOKIE + b"=b")],
    ],
)
def test_two_of_a_kind_are_refused_not_chosen_from(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Problem, match="send one") as caught:
        find(headers)
    assert caught.value.name == "unauthenticated"
