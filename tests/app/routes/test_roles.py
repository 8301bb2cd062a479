"""Each route admits the roles that it documents, and only for the categories of the key."""

import re
from urllib.parse import quote

import pytest

from app.schemas.access import Role
from tests.app.conftest import Keyed
from tests.app.routes.test_openapi import ROLES
from tests.app.support.services import refusal_detail

ROUTES = [
    (method, path, roles.split(", "))
    for roles, lines in ROLES.items()
    for method, *paths in map(str.split, lines.strip().splitlines())
    for path in paths
]


def status(keyed: Keyed, method: str, path: str, role: str) -> int:
    """Return the status of a request that can succeed at nothing but reading lists."""
    place = re.sub(r"{\w+}", "other", path)
    query = {"after": "no number"} if path == "/v1/events" else {}  # its stream has no end
    return keyed.client.request(method, place, params=query, headers=keyed.show(role)).status_code


def test_each_role_is_admitted_where_documented(keyed: Keyed) -> None:
    for method, path, roles in ROUTES:
        for role in Role:
            answered = status(keyed, method, path, role)
            assert (answered in (401, 403)) is (role not in roles), (method, path, role, answered)


def test_key_is_refused_outside_its_categories(keyed: Keyed) -> None:
    concerned = [(method, path) for method, path, _ in ROUTES if "{category}" in path]
    assert len(concerned) > 30
    for method, path in concerned:
        assert status(keyed, method, path, "limited") == 403, (method, path)
        own = path.replace("{category}", "tiny")
        assert status(keyed, method, own, "limited") != 403, (method, path)


@pytest.mark.parametrize("other", ["tniy", "tiny\n", "Tiny", "tiny,grid"])
def test_key_is_refused_for_a_similar_category(keyed: Keyed, other: str) -> None:
    response = keyed.client.get(f"/v1/models/{quote(other)}/thresholds", headers=keyed.show("limited"))
    assert f"not for category {other!r}" in refusal_detail(response, 403, "forbidden")


def test_refusal_names_the_roles_that_may(keyed: Keyed) -> None:
    response = keyed.client.get("/v1/inspections", headers=keyed.show("line"))
    said = "one of the roles viewer, inspector, operator, admin; the key's role is line."
    assert said in refusal_detail(response, 403, "forbidden")


def test_key_of_a_category_administers_no_others(keyed: Keyed) -> None:
    for route in ("GET /metrics", "GET /v1/keys", "GET /v1/audit", "POST /v1/deletions/age/confirm"):
        method, path = route.split()
        assert status(keyed, method, path, "limited") == 403, route
    assert status(keyed, "GET", "/v1/inspections", "limited") == 200  # its own categories' alone
