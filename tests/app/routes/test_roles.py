"""Each route admits the roles that it documents, and only for the categories of the key."""

import re

from app.schemas.access import Role
from tests.app.conftest import Keyed
from tests.app.routes.test_openapi import ROLES

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


def test_key_of_a_category_administers_no_others(keyed: Keyed) -> None:
    for route in ("GET /metrics", "GET /v1/keys", "GET /v1/audit", "POST /v1/deletions/age/confirm"):
        method, path = route.split()
        assert status(keyed, method, path, "limited") == 403, route
