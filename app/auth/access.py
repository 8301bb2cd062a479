"""Who may do what: roles, and the caller that a request comes from."""

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
    Role.OPERATOR: _SEE | {Permission.REVIEW, Permission.TUNE},
    Role.ADMIN: frozenset(Permission),
}


def roles(permission: Permission) -> list[Role]:
    """The roles that have a permission."""
    return [role for role, has in PERMISSIONS.items() if permission in has]


@dataclass(frozen=True)
class Caller:
    """Who a request comes from, by its key."""

    key_id: str | None  # None where the service has no keys
    name: str
    role: Role
    categories: frozenset[str] | None = None  # the only ones it may deal with; None for all

    @property
    def actor(self) -> str:
        """How the audit log names it: the key's id, which no other key has, and its name."""
        return self.name if self.key_id is None else f"{self.key_id} {self.name}"

    def require(self, permission: Permission) -> None:
        """Raise the problem forbidden unless the role has a permission."""
        if permission not in PERMISSIONS[self.role]:
            wanted = ", ".join(roles(permission))
            raise Problem(
                "forbidden", f"This needs one of the roles {wanted}; the key's role is {self.role}."
            )

    def require_category(self, category: str) -> None:
        """Raise the problem forbidden unless the key is for a category."""
        if self.categories is not None and category not in self.categories:
            raise Problem("forbidden", f"The key is not for category {category[:64]!r}.")


ANONYMOUS = Caller(None, "anonymous", Role.ADMIN)
# Whoever can run commands on the server's machine can do all that the commands can.
COMMAND_LINE = Caller(None, "command line", Role.ADMIN)
# What the service notices by itself.
SERVER = Caller(None, "server", Role.ADMIN)


class Requires(APIKeyHeader):
    """A dependency of routes: the caller, who must have a permission.

    Where the path names a {category}, the caller's key must be for it. Where it names none, administration is
    of the whole service, and a key for some categories alone is not enough. Other routes of many categories
    restrict themselves to `caller.categories`.

    Args:
        permission: what the caller must have; None asks for nothing but a caller.
    """

    def __init__(self, permission: Permission | None) -> None:
        super().__init__(name=KEY_HEADER, scheme_name="key", auto_error=False)
        self.permission = permission

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        """Give the caller that app/middleware/guard.py has found.

        Raises:
            Problem: forbidden.
        """
        caller: Caller = request.state.caller  # a request that came around the guard ends here
        if self.permission is None:
            return caller
        caller.require(self.permission)
        category = request.path_params.get("category")
        if category is not None:
            caller.require_category(category)
        elif self.permission is Permission.ADMIN and caller.categories is not None:
            raise Problem("forbidden", "This is about all categories; the key is for some of them.")
        return caller


def needs(permission: Permission) -> Any:
    """The dependency of a route on a permission, which is also in the OpenAPI document."""
    return Security(Requires(permission), scopes=[permission])


AnyCaller = Annotated[Caller, Security(Requires(None))]
MayPredict = Annotated[Caller, needs(Permission.PREDICT)]
MaySeeModels = Annotated[Caller, needs(Permission.MODELS)]
MaySeeResult = Annotated[Caller, needs(Permission.RESULT)]
MaySeeHistory = Annotated[Caller, needs(Permission.HISTORY)]
MayReview = Annotated[Caller, needs(Permission.REVIEW)]
MayTune = Annotated[Caller, needs(Permission.TUNE)]
MayAdminister = Annotated[Caller, needs(Permission.ADMIN)]
