"""API keys: creating, listing and revoking them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.auth.permissions import MayAdminister
from app.dependencies import KeyringDep, KeysDep
from app.errors.problems import Problem
from app.routes.openapi import documented
from app.schemas import access as schemas
from app.schemas.access import Role

router = APIRouter(prefix="/v1/keys", tags=["keys"])

KeyId = Annotated[
    str, Path(description="A key's id.", pattern=r"^[0-9a-f]{16}$", examples=["4f1d8a02c7b96e35"])
]


@router.get("", responses=documented("internal", "history-unavailable"))
def list_keys(_: MayAdminister, keys: KeysDep) -> schemas.KeyList:
    """List all keys without their secrets, revoked and expired ones included."""
    return schemas.KeyList(keys=[key.to_schema() for key in keys.list()])


@router.post(
    "",
    status_code=201,
    responses=documented("invalid-request", "conflict", "internal", "history-unavailable"),
)
def create_key(
    new: schemas.NewKey,
    request: Request,
    response: Response,
    caller: MayAdminister,
    keys: KeysDep,
    keyring: KeyringDep,
) -> schemas.CreatedKey:
    """Create a key. Its text is in the answer and is shown only once.

    Once a key exists, every request needs one. The first key must therefore have the role admin and cover all
    categories.
    """
    with _refusals_audited(request, "key.create", new.name):
        if not keyring.required and (new.role is not Role.ADMIN or new.categories is not None):
            raise Problem(
                "conflict",
                "The first key must have the role admin and cover all categories, because from then on "
                "every request needs a key.",
            )
        key, text = keys.create(caller, request_id=request.state.request_id, **dict(new))
    keyring.reload()
    response.headers["Location"] = f"{router.prefix}/{key.id}"
    return schemas.CreatedKey(**dict(key.to_schema()), key=text)


@router.get(
    "/{key_id}", responses=documented("invalid-request", "not-found", "internal", "history-unavailable")
)
def get_key(key_id: KeyId, _: MayAdminister, keys: KeysDep) -> schemas.Key:
    """Return a key's name, role, categories and validity."""
    return keys.get(key_id).to_schema()


@router.delete(
    "/{key_id}",
    status_code=204,
    responses=documented("invalid-request", "not-found", "conflict", "internal", "history-unavailable"),
)
def revoke_key(
    key_id: KeyId, request: Request, caller: MayAdminister, keys: KeysDep, keyring: KeyringDep
) -> None:
    """Revoke a key and its sessions for ever. It stays in the list. A key cannot revoke itself."""
    with _refusals_audited(request, "key.revoke", key_id):
        if key_id == caller.key_id:
            raise Problem(
                "conflict",
                "A key cannot revoke itself. Use another administrator's key, or `flowgauge keys revoke`.",
            )
        keys.revoke(caller, key_id, request.state.request_id)
    keyring.reload()


@contextmanager
def _refusals_audited(request: Request, action: str, target: str) -> Iterator[None]:
    """Log refused changes. Successful ones are logged in their own transaction."""
    try:
        yield
    except Problem as problem:
        audit, state = request.app.state.audit, request.state
        detail = {"problem": problem.name, "refusal": problem.detail}
        audit.write(state.caller, action, target, "refused", detail, state.request_id)
        raise
