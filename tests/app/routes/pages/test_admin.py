"""Pages of administrators: keys, uploads and the audit log."""

import re
from html import unescape
from pathlib import Path

import pytest

from app.auth.audit import Audit
from app.auth.permissions import SERVER
from tests.app.conftest import Keyed
from tests.app.support.pages import get_page, read_page
from tests.app.support.services import create_service


@pytest.mark.parametrize("path", ["/admin", "/admin/log"])
def test_pages_are_for_administrators_of_all_categories(keyed: Keyed, path: str) -> None:
    for role in keyed.keys:
        response = get_page(keyed, path, role)
        assert response.status_code == (200 if role == "admin" else 403), role
        assert ('href="/admin"' in response.text) == (role == "admin"), role


def test_keys_are_shown_without_their_secrets(keyed: Keyed) -> None:
    text = read_page(keyed, "/admin", "admin")
    revocable = set(re.findall(r'data-revoke="([0-9a-f]{16})"', text))
    assert revocable == {keyed.key_id(role) for role in keyed.keys if role != "admin"}
    assert "in use here" in text
    assert not any(key.split("_", 2)[2] in text for key in keyed.keys.values())
    keyed.client.delete(f"/v1/keys/{keyed.key_id('line')}", headers=keyed.show("admin"))
    text = read_page(keyed, "/admin", "admin")
    assert f'data-revoke="{keyed.key_id("line")}"' not in text
    assert "revoked" in text


def test_first_key_is_an_administrators(store: Path) -> None:
    with create_service(store) as client:
        text = client.get("/admin").text
    assert "The first key must be an administrator" in text
    assert re.findall(r'<option value="(\w+)">\w+:', text) == ["admin"]
    assert 'id="kept" href="/login"' in text  # the page itself then needs the key


def test_log_is_read_page_by_page_with_a_filter(keyed: Keyed) -> None:
    log = Audit(keyed.database)
    for number in range(52):
        log.write(SERVER, "model.delete", f"tiny/v{number}", "done", {})
    log.write(SERVER, "product.create", "<b>cap</b>", "refused", {"refusal": "<i>no</i>"})

    def targets(address: str) -> list[str]:
        text = unescape(read_page(keyed, address, "admin"))
        return re.findall(r'<td class="wrap-anywhere">(tiny/v\d+|<b>cap</b>)</td>', text)

    assert targets("/admin/log")[:2] == ["<b>cap</b>", "tiny/v51"]
    text = read_page(keyed, "/admin/log", "admin", action="model.delete")
    assert "<i>no</i>" not in text
    [older] = re.findall(r'rel="next" href="([^"]+)"', text)
    assert targets("/admin/log?action=model.delete") == [f"tiny/v{number}" for number in range(51, 1, -1)]
    assert targets(unescape(older)) == ["tiny/v1", "tiny/v0"]
    assert targets("/admin/log?target=tiny/v7") == ["tiny/v7"]
    assert "There are no such entries." in read_page(keyed, "/admin/log", "admin", action="x")
