"""Keys: who may use the service, and for what."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.auth.access import MayAdminister, Role
from app.dependencies import KeyringPart, KeysPart
from app.errors.problems import Problem
from app.routes.openapi import documented
from app.schemas import access as schemas

router = APIRouter(prefix="/v1/keys", tags=["keys"])

KeyId = Annotated[
    str, Path(description="A key's id.", pattern=r"^[0-9a-f]{16}$", examples=["4f1d8a02c7b96e35"])
]


@router.get("", responses=documented("internal", "history-unavailable"))
def list_keys(_: MayAdminister, keys: KeysPart) -> schemas.KeyList:
    """List all keys, with those that have been revoked or have expired; never their secrets."""
    return schemas.KeyList(keys=[key.shown() for key in keys.list()])


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
    keys: KeysPart,
    keyring: KeyringPart,
) -> schemas.CreatedKey:
    """Make a key. The answer has its text, which cannot be had again.

    From the first key on, every request needs one. So where there is none, the first must be an
    administrator's for all categories.
    """
    with _refusals_audited(request, "key.create", new.name):
        if not keyring.required and (new.role is not Role.ADMIN or new.categories is not None):
            raise Problem(
                "conflict",
                "From the first key on, every request needs one; so make one of role admin for all "
                "categories.",
            )
        key, text = keys.create(caller, request_id=request.state.request_id, **dict(new))
    keyring.reload()
    response.headers["Location"] = f"{router.prefix}/{key.id}"
    return schemas.CreatedKey(**dict(key.shown()), key=text)


@router.get(
    "/{key_id}", responses=documented("invalid-request", "not-found", "internal", "history-unavailable")
)
def get_key(key_id: KeyId, _: MayAdminister, keys: KeysPart) -> schemas.Key:
    """Tell what is known of a key."""
    return keys.get(key_id).shown()


@router.delete(
    "/{key_id}",
    status_code=204,
    responses=documented("invalid-request", "not-found", "conflict", "internal", "history-unavailable"),
)
def revoke_key(
    key_id: KeyId, request: Request, caller: MayAdminister, keys: KeysPart, keyring: KeyringPart
) -> None:
    """Revoke a key and its sessions, at once and for ever. It stays in the list.

    A key cannot revoke itself, so that one is left that can.
    """
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
    """Write to the audit log what is refused; what is done is in the transaction that does it."""
    try:
        yield
    except Problem as problem:
        audit, state = request.app.state.audit, request.state
        detail = {"problem": problem.name, "refusal": problem.detail}
        audit.write(state.caller, action, target, "refused", detail, state.request_id)
        raise
