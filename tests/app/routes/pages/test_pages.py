"""What holds of every page: who may see it, which language it speaks, what it may load, how it fails."""

import re
from typing import Any

import httpx2
import pytest
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from markupsafe import escape
from starlette.testclient import TestClient

from app.auth.permissions import PERMISSIONS
from app.auth.sessions import COOKIE
from app.middleware.authentication import OPEN
from app.middleware.login_redirect import STATIC
from app.routes.pages import PAGES
from app.schemas.access import Permission, Role
from tests.app.conftest import Keyed
from tests.app.routes.pages.rows import add, answered
from tests.app.support.guard import log_in

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ROUTES = [route for router in PAGES for route in router.routes if isinstance(route, APIRoute)]


def page(keyed: Keyed, path: str, role: str = "viewer", **headers: str) -> httpx2.Response:
    return keyed.client.get(path, headers=keyed.show(role) | HTML | headers, follow_redirects=False)


def test_every_page_says_who_may_see_it() -> None:
    assert len(ROUTES) > 5
    for route in ROUTES:
        opened = route.path in OPEN or route.path.startswith(STATIC)
        [operations] = get_openapi(title="", version="", routes=[route])["paths"].values()
        assert ("security" in operations["get"]) != opened, route.path
        assert route.methods == {"GET"}  # pages change nothing: scripts do, by the API


SEEN_WITH = dict.fromkeys(("/", "/scores", "/report"), "history") | {"/inspect": "predict", "/admin": "admin"}


def test_a_line_is_led_from_the_wall_to_where_it_inspects(keyed: Keyed) -> None:
    response = page(keyed, "/", "line")
    assert (response.status_code, response.headers["Location"]) == (303, "/inspect")
    refused = page(keyed, "/scores", "line")
    assert refused.status_code == 403
    assert "the key&#39;s role is line" in refused.text


@pytest.mark.parametrize("role", Role)
def test_the_navigation_offers_what_the_role_may_see(keyed: Keyed, role: Role) -> None:
    [identifier] = add(keyed.database, answered())
    response = page(keyed, f"/inspections/{identifier}", role)
    assert response.status_code == 200
    offered = set(re.findall(r'<a href="([^"]+)"[^>]*><svg class="icon"', response.text))
    wanted = {"/products"} | {p for p, needed in SEEN_WITH.items() if Permission(needed) in PERMISSIONS[role]}
    assert offered == wanted
    may_review = Permission.REVIEW in PERMISSIONS[role]
    assert ('data-verdict="good"' in response.text) == may_review


class TestLoggingIn:
    @pytest.mark.parametrize(
        ("path", "wanted"),
        [("/", "/"), ("/?category=bottle&station=line%203", "/%3Fcategory%3Dbottle%26station%3Dline%25203")],
    )
    def test_a_browser_is_led_to_it_and_back(self, keyed: Keyed, path: str, wanted: str) -> None:
        response = keyed.client.get(path, headers=HTML, follow_redirects=False)
        assert (response.status_code, response.headers["Location"]) == (303, f"/login?next={wanted}")
        login = keyed.client.get(response.headers["Location"], headers=HTML)
        assert login.status_code == 200
        shown = re.search(r'data-next="([^"]+)"', login.text)
        assert shown is not None
        assert shown[1].replace("&amp;", "&") == path

    @pytest.mark.parametrize(
        ("method", "path", "accept"),
        [
            ("GET", "/", "application/json"),
            ("POST", "/", HTML["Accept"]),
            ("GET", "/v1/models", HTML["Accept"]),  # Java's HttpURLConnection accepts text/html first
        ],
    )
    def test_anybody_else_gets_the_problem(self, keyed: Keyed, method: str, path: str, accept: str) -> None:
        response = keyed.client.request(method, path, headers={"Accept": accept}, follow_redirects=False)
        assert response.status_code == 401
        assert response.json()["type"] == "unauthenticated"

    def test_session_opens_pages_with_its_csrf_token(self, keyed: Keyed) -> None:
        [token] = log_in(keyed, "operator").values()
        text = keyed.client.get("/", headers=HTML).text
        assert f'<meta name="csrf-token" content="{token}">' in text
        assert keyed.client.cookies[COOKIE] not in text
        assert 'id="leave"' in text

    def test_a_server_without_keys_says_that_there_is_nothing_to_do(self, tmp_path: Any) -> None:
        from app.main import create_app
        from app.settings import Settings

        (tmp_path / "models").mkdir()
        app = create_app(Settings(models=tmp_path / "models", history=tmp_path / "history"))
        with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5000)) as client:
            text = client.get("/login", headers=HTML).text
            assert "requires no key" in text
            assert "<form" not in text
            assert client.get("/", headers=HTML).status_code == 200


class TestWhatItMayLoad:
    def test_only_what_the_service_itself_has(self, keyed: Keyed) -> None:
        policy = page(keyed, "/").headers["Content-Security-Policy"]
        parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert parts["default-src"] == parts["frame-ancestors"] == parts["base-uri"] == "'none'"
        loads = {name for name, sources in parts.items() if sources == "'self'"}
        assert loads == {"script-src", "style-src", "img-src", "connect-src", "form-action"}
        assert "unsafe" not in policy

    @pytest.mark.parametrize("path", ["/", "/inspect", "/login", "/inspections/nothing"])
    def test_pages_have_no_inline_script_or_style(self, keyed: Keyed, path: str) -> None:
        text = page(keyed, path, "admin").text
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:", text)
        assert all(
            'src="/static/' in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", text)
        )
        addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert addresses
        assert not [one for one in addresses if not one.startswith(("/", "#"))]


class TestLanguage:
    @pytest.mark.parametrize(
        ("headers", "language"),
        [
            ({}, "en"),
            ({"Accept-Language": "de-AT,de;q=0.9,en;q=0.8"}, "de"),
            ({"Accept-Language": "fr, de;q=0.5, en;q=0.4"}, "de"),
            ({"Accept-Language": "de", "Cookie": "flowgauge_language=en"}, "en"),
            ({"Accept-Language": "de", "Cookie": "flowgauge_language=../../en"}, "de"),
        ],
    )
    def test_is_that_of_the_cookie_or_what_the_browser_asks_for(
        self, keyed: Keyed, headers: dict[str, str], language: str
    ) -> None:
        text = page(keyed, "/scores", **headers).text
        assert f'<html lang="{language}"' in text
        assert {"en": "Scores over time", "de": "Werte im Verlauf"}[language] in text


@pytest.mark.parametrize(("cookie", "theme"), [("", "auto"), ("dark", "dark"), ('"x', "auto")])
def test_chosen_theme_applies_from_the_first_paint(keyed: Keyed, cookie: str, theme: str) -> None:
    text = page(keyed, "/", Cookie=f"flowgauge_theme={cookie}").text
    assert f'data-theme="{theme}"' in text


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "status", "words"),
        [
            ("/inspections/nothing", 404, "Inspection not found"),
            ("/inspections/0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11", 404, "Inspection not found"),
            ("/?before=nonsense", 400, "The request is not valid"),
            ("/scores?last=100000", 400, "The request is not valid"),
        ],
    )
    def test_are_pages(self, keyed: Keyed, path: str, status: int, words: str) -> None:
        response = page(keyed, path)
        assert response.status_code == status
        assert f"<h1>{words}</h1>" in response.text
        assert response.headers["X-Request-ID"] in response.text
        assert response.headers["Cache-Control"] == "no-store"

    def test_a_failure_tells_nothing_of_itself(self, keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(keyed.app.state, "history")
        response = page(keyed, "/")
        assert response.status_code == 500
        assert "Server error" in response.text
        assert "Traceback" not in response.text
        assert "history" not in re.sub(
            r"<script.*?</script>|<nav.*?</nav>", "", response.text, flags=re.DOTALL
        )


class TestCategoriesOfAKey:
    def test_others_are_neither_shown_nor_named(self, keyed: Keyed) -> None:
        add(
            keyed.database,
            answered(category="tiny", part_id="mine", station="mine-1"),
            answered(category="secret", part_id="theirs", station="theirs-1"),
        )
        for path in ("/", "/scores?category=tiny"):
            text = page(keyed, path, "limited").text
            assert "mine" in text
            assert "secret" not in text
            assert "theirs" not in text
        assert page(keyed, "/?category=secret", "limited").status_code == 403


@pytest.mark.parametrize("text", ["</script><b>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}"])
@pytest.mark.parametrize("column", ["part_id", "station"])
def test_text_from_outside_stays_text(keyed: Keyed, text: str, column: str) -> None:
    columns: dict[str, Any] = {column: text}
    [identifier] = add(keyed.database, answered(**columns))
    for path in ("/", "/scores?category=tiny", f"/inspections/{identifier}"):
        shown = page(keyed, path).text
        assert str(escape(text)) in shown, path
        assert text not in shown.replace(str(escape(text)), "")
