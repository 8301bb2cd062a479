import pytest

from app.http.accept import negotiate

OFFERS = ("application/json", "image/png", "application/x-npy")
JSON, PNG, NPY = OFFERS


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/*", JSON),
        ("image/*", PNG),
        ("image/png", PNG),
        ("application/x-npy", NPY),
        # Equal quality: the server's order, not the header's.
        ("image/png, application/json", JSON),
        ("application/json;q=0.5, image/png;q=0.9", PNG),
        ("application/json;q=0.5, image/*;q=0.4, */*;q=0.1", JSON),
        ("image/png, */*;q=0.8", PNG),
        # The most specific range decides for an offer, even when a wider one is kinder.
        ("application/json;q=0.1, application/*", NPY),
        ("*/*, application/json;q=0", PNG),
        ("image/*, image/png;q=0, */*;q=0.3", JSON),
        # A browser.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", JSON),
        # Java's HttpURLConnection.
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", JSON),
        # What cannot be read is passed over.
        ("nonsense, image/png", PNG),
        ("application/json;q=often, image/png;q=0.1", PNG),
        # None of these can be given.
        *((header, None) for header in ("text/csv", "nonsense", "*/*;q=0", "text/*, image/gif")),
    ],
)
def test_best_offer_is_chosen(header: str | None, expected: str | None) -> None:
    assert negotiate(header, OFFERS) == expected
