"""Keys: who may use the service, and for what."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app import keys as keys_module
from app.access import Caller, MayAdminister, Role
from app.audit import Audit
from app.database import clock
from app.dependencies import AuditPart, KeyringPart, KeysPart
from app.keys import Key, KeysError
from app.openapi import documented
from app.problems import Problem
from app.schemas import access as schemas

router = APIRouter(prefix="/v1/keys", tags=["keys"])

KeyId = Annotated[
    str,
    Path(description="A key's id.", pattern=keys_module.ID_PATTERN, examples=["4f1d8a02c7b96e35"]),
]


@router.get("", responses=documented("internal", "history-unavailable"))
def list_keys(_: MayAdminister, keys: KeysPart) -> schemas.KeyList:
    """List all keys, with those that have been revoked or have expired; never their secrets."""
    return schemas.KeyList(keys=[_shown(key) for key in keys.list()])


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
    audit: AuditPart,
) -> schemas.CreatedKey:
    """Make a key. The answer has its text, which cannot be had again.

    From the first key on, every request needs one. So where there is none, the first must be an
    administrator's for all categories.
    """
    if not keyring.required and (new.role is not Role.ADMIN or new.categories is not None):
        problem = Problem(
            "conflict",
            "From the first key on, every request needs one; so make one of role admin for all categories.",
        )
        _refused(audit, caller, "key.create", new.name, problem, request)
        raise problem
    try:
        key, text = keys.create(
            caller,
            new.role,
            new.name,
            categories=new.categories,
            expires_days=new.expires_days,
            requests_per_minute=new.requests_per_minute,
            request_id=request.state.request_id,
        )
    except KeysError as error:
        raise Problem("invalid-request", f"{error}.") from error
    keyring.reload()
    response.headers["Location"] = f"{router.prefix}/{key.id}"
    return schemas.CreatedKey(**_shown(key).model_dump(), key=text)


@router.get(
    "/{key_id}", responses=documented("invalid-request", "not-found", "internal", "history-unavailable")
)
def get_key(key_id: KeyId, _: MayAdminister, keys: KeysPart) -> schemas.Key:
    """Tell what is known of a key."""
    try:
        return _shown(keys.get(key_id))
    except KeysError:
        raise _unknown(key_id) from None


@router.delete(
    "/{key_id}",
    status_code=204,
    responses=documented("invalid-request", "not-found", "conflict", "internal", "history-unavailable"),
)
def revoke_key(
    key_id: KeyId,
    request: Request,
    caller: MayAdminister,
    keys: KeysPart,
    keyring: KeyringPart,
    audit: AuditPart,
) -> None:
    """Revoke a key and its sessions, at once and for ever. It stays in the list.

    A key cannot revoke itself, so that one is left that can.
    """
    if key_id == caller.key_id:
        problem = Problem(
            "conflict",
            "A key cannot revoke itself. Use another administrator's key, or `flowgauge keys revoke`.",
        )
        _refused(audit, caller, "key.revoke", key_id, problem, request)
        raise problem
    try:
        keys.revoke(caller, key_id, request.state.request_id)
    except KeysError:
        problem = _unknown(key_id)
        _refused(audit, caller, "key.revoke", key_id, problem, request)
        raise problem from None
    keyring.reload()


def _refused(
    audit: Audit, caller: Caller, action: str, target: str, problem: Problem, request: Request
) -> None:
    detail = {"problem": problem.name, "refusal": problem.detail}
    audit.write(caller, action, target, "refused", detail, request.state.request_id)


def _shown(key: Key) -> schemas.Key:
    return schemas.Key(
        id=key.id,
        name=key.name,
        role=key.role,
        categories=None if key.categories is None else sorted(key.categories),
        requests_per_minute=key.requests_per_minute,
        created=clock.iso(key.created_ms),
        expires=None if key.expires_ms is None else clock.iso(key.expires_ms),
        revoked=None if key.revoked_ms is None else clock.iso(key.revoked_ms),
        valid=key.fault(clock.now_ms()) is None,
    )


def _unknown(key_id: str) -> Problem:
    return Problem("not-found", f"There is no key {key_id}; GET /v1/keys lists those there are.")
