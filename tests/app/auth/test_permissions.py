import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from app.auth.permissions import ANONYMOUS, PERMISSIONS, Caller, Requires
from app.errors.problems import Problem
from app.schemas.access import Permission, Role

LINE = Caller("1" * 16, "line 3", Role.LINE, frozenset({"bottle"}))


def ask(required: Permission | None, caller: Caller | None, **path_params: str) -> Caller:
    state: dict[str, Any] = {} if caller is None else {"caller": caller}
    scope = {"type": "http", "headers": [], "path_params": path_params, "state": state}
    return asyncio.run(Requires(required)(Request(scope)))


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("role", Role)
def test_role_has_exactly_its_permissions(role: Role, permission: Permission) -> None:
    caller = Caller("1" * 16, "name", role)
    if permission in PERMISSIONS[role]:
        assert ask(permission, caller) is caller
        return
    with pytest.raises(Problem) as caught:
        ask(permission, caller)
    assert caught.value.name == "forbidden"
    assert f"the key's role is {role}" in caught.value.detail
    assert "admin" in caught.value.detail


def test_key_of_a_category_is_refused_for_others() -> None:
    assert ask(Permission.PREDICT, LINE, category="bottle") is LINE
    for other in ("bottel", "bottle\n", "Bottle", "", "bottle,grid"):
        with pytest.raises(Problem, match="not for category"):
            ask(Permission.PREDICT, LINE, category=other)


def test_administration_needs_a_key_for_all_categories() -> None:
    limited = Caller("1" * 16, "name", Role.ADMIN, frozenset({"bottle"}))
    assert ask(Permission.ADMIN, limited, category="bottle") is limited
    with pytest.raises(Problem, match="concerns all categories"):
        ask(Permission.ADMIN, limited)
    assert ask(Permission.HISTORY, limited) is limited  # restricts itself to the caller's categories


def test_actor_is_id_and_name() -> None:
    assert LINE.actor == "1111111111111111 line 3"
    assert ANONYMOUS.actor == "anonymous"
