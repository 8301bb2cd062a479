from app.web.static_files import static_files
from tests.app.conftest import Keyed
from tests.app.support.guard import assert_problem


def test_a_browser_may_keep_a_file_of_this_build_for_ever(keyed: Keyed) -> None:
    address = static_files().address("base.css")
    first = keyed.client.get(address)  # before any login
    assert first.status_code == 200
    assert first.headers["Content-Type"] == "text/css; charset=utf-8"
    assert "immutable" in first.headers["Cache-Control"]
    again = keyed.client.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304


def test_a_file_of_another_build_is_todays_and_not_kept(keyed: Keyed) -> None:
    response = keyed.client.get("/static/0123456789abcdef/base.js")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"].startswith("text/javascript")


def test_there_is_nothing_else(keyed: Keyed) -> None:
    for name in ("nothing.css", "..%2Fpage.py", "%2e%2e/page.py", "page.py"):
        response = keyed.client.get(f"/static/{static_files().build}/{name}")
        assert_problem(response, 404, "not-found")
