"""Permissions of roles, the caller of a request, and dependencies that require a permission."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from app.errors.problems import Problem
from app.schemas.access import Permission, Role

KEY_HEADER: Final = "X-API-Key"

_SEE = frozenset({Permission.MODELS, Permission.RESULT, Permission.HISTORY})
PERMISSIONS = {
    Role.LINE: frozenset({Permission.PREDICT, Permission.MODELS, Permission.RESULT}),
    Role.VIEWER: _SEE,
    Role.INSPECTOR: _SEE | {Permission.PREDICT, Permission.REVIEW},
    Role.OPERATOR: _SEE | {Permission.PREDICT, Permission.REVIEW, Permission.TEACH, Permission.TUNE},
    Role.ADMIN: frozenset(Permission),
}


def roles(permission: Permission) -> list[Role]:
    return [role for role, has in PERMISSIONS.items() if permission in has]


@dataclass(frozen=True)
class Caller:
    """The sender of a request, identified by its key."""

    key_id: str | None  # None if the service has no keys
    name: str
    role: Role
    categories: frozenset[str] | None = None  # the allowed ones; None for all

    @property
    def actor(self) -> str:
        """The caller's name in the audit log: the key's unique id and its name."""
        return self.name if self.key_id is None else f"{self.key_id} {self.name}"

    def require(self, permission: Permission) -> None:
        """Raise the problem forbidden unless the role has a permission."""
        if permission not in PERMISSIONS[self.role]:
            allowed = ", ".join(roles(permission))
            raise Problem(
                "forbidden", f"This needs one of the roles {allowed}; the key's role is {self.role}."
            )

    def require_category(self, category: str) -> None:
        """Raise the problem forbidden unless the key is for a category."""
        if self.categories is not None and category not in self.categories:
            raise Problem("forbidden", f"The key is not for category {category[:64]!r}.")


ANONYMOUS = Caller(None, "anonymous", Role.ADMIN)
# A person with a shell on the server may use every command.
COMMAND_LINE = Caller(None, "command line", Role.ADMIN)
# For entries that the service writes on its own account.
SERVER = Caller(None, "server", Role.ADMIN)


class Requires(APIKeyHeader):
    """A dependency that returns the caller and requires a permission, if one is given.

    If the path has a {category}, the key must be valid for it. If it has none, an administrative route covers
    the whole service, and a key for some categories is refused. Other routes across categories restrict
    themselves to `caller.categories`.
    """

    def __init__(self, permission: Permission | None) -> None:
        super().__init__(name=KEY_HEADER, scheme_name="key", auto_error=False)
        self.permission = permission

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        """Return the caller of a request, or raise the problem forbidden."""
        caller: Caller = request.state.caller  # fails for a request that bypassed the guard
        if self.permission is None:
            return caller
        caller.require(self.permission)
        category = request.path_params.get("category")
        if category is not None:
            caller.require_category(category)
        elif self.permission is Permission.ADMIN and caller.categories is not None:
            raise Problem("forbidden", "This concerns all categories; the key is for some of them.")
        return caller


def needs(permission: Permission) -> Any:
    """Make a dependency on a permission; the OpenAPI document shows the permission."""
    return Security(Requires(permission), scopes=[permission])


AnyCaller = Annotated[Caller, Security(Requires(None))]
MayPredict = Annotated[Caller, needs(Permission.PREDICT)]
MaySeeModels = Annotated[Caller, needs(Permission.MODELS)]
MaySeeResult = Annotated[Caller, needs(Permission.RESULT)]
MaySeeHistory = Annotated[Caller, needs(Permission.HISTORY)]
MayReview = Annotated[Caller, needs(Permission.REVIEW)]
MayTeach = Annotated[Caller, needs(Permission.TEACH)]
MayTune = Annotated[Caller, needs(Permission.TUNE)]
MayAdminister = Annotated[Caller, needs(Permission.ADMIN)]
