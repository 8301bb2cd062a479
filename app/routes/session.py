"""Logging in and out: a browser exchanges a key for a cookie."""

import logging

from anyio import from_thread
from fastapi import APIRouter, Request, Response

from app.auth.keyring import UnknownCredentials
from app.auth.permissions import PERMISSIONS, AnyCaller, Caller
from app.auth.sessions import COOKIE, csrf_token
from app.dependencies import KeyringDep, SessionsDep, SettingsDep
from app.errors.problems import Problem
from app.middleware.authentication import LOGIN
from app.middleware.client_address import client_address
from app.routes.openapi import documented
from app.schemas import access as schemas

logger = logging.getLogger("flowgauge.authentication")

router = APIRouter(tags=["session"])


@router.post(
    LOGIN,
    responses=documented(
        "invalid-request", "unauthenticated", "forbidden", "rate-limited", "internal", "history-unavailable"
    ),
)
def login(
    login: schemas.Login,
    request: Request,
    response: Response,
    keyring: KeyringDep,
    sessions: SessionsDep,
    settings: SettingsDep,
) -> schemas.Session:
    """Exchange a key for a session cookie.

    Scripts cannot read the cookie, and other sites cannot send it. Writes with the session need `csrf_token`
    as X-CSRF-Token. The session ends after FLOWGAUGE_SESSION_HOURS, with the key, or at /logout.
    """
    try:
        try:
            key = keyring.require_key(login.key)
        except UnknownCredentials:
            from_thread.run(keyring.look_up)
            key = keyring.require_key(login.key)
    except Problem as problem:
        logger.warning("refused a login from %s: %s", client_address(request.scope), problem.detail)
        raise
    secret = sessions.open(key.id, settings.session_hours)
    keyring.reload()
    logger.info("%r logged in from %s", key.caller.actor, client_address(request.scope))
    response.set_cookie(
        COOKIE,
        secret,
        max_age=round(settings.session_hours * 3600),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return _shown(key.caller, secret)


@router.post("/logout", status_code=204, responses=documented("internal", "history-unavailable"))
def logout(
    request: Request, response: Response, _: AnyCaller, sessions: SessionsDep, keyring: KeyringDep
) -> None:
    """End the session. A request with a key has none, and nothing happens."""
    if request.state.session is not None:
        sessions.close(request.state.session)
        keyring.reload()
        response.delete_cookie(COOKIE, secure=request.url.scheme == "https", httponly=True, samesite="strict")


@router.get("/v1/session", responses=documented("internal"))
async def get_session(request: Request, caller: AnyCaller) -> schemas.Session:
    """Return the caller's name, role and permissions."""
    return _shown(caller, request.state.session)


def _shown(caller: Caller, secret: str | None) -> schemas.Session:
    return schemas.Session(
        key_id=caller.key_id,
        name=caller.name,
        role=caller.role,
        permissions=sorted(PERMISSIONS[caller.role]),
        categories=None if caller.categories is None else sorted(caller.categories),
        csrf_token=None if secret is None else csrf_token(secret),
    )
