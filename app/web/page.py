"""Pages: templates rendered in the user's language, and errors as pages."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, Response

from app.auth.permissions import PERMISSIONS, Caller
from app.auth.sessions import csrf_token
from app.errors import problem_responses, problems
from app.errors.problems import Problem
from app.history.deletions import DeletionGuard
from app.schemas.access import Permission
from app.schemas.deletions import HeldDeletion
from app.web import messages
from app.web.static_files import static_files
from app.web.templating import data, environment

THEME_COOKIE: Final = "flowgauge_theme"
# A page loads only the service's own files and has no inline scripts or styles.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Page:
    """Renderer of a page in the user's language (`say`), for a caller if there is one."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.say = messages.choose(request)
        self.caller: Caller | None = getattr(request.state, "caller", None)

    def may(self, permission: str) -> bool:
        """Return True if the user has a permission: a page offers nothing that would be refused."""
        return self.caller is not None and Permission(permission) in PERMISSIONS[self.caller.role]

    def held_deletions(self) -> list[HeldDeletion]:
        """Return the held deletions, if the user may see the history."""
        guard: DeletionGuard | None = getattr(self._request.app.state, "deletions", None)
        return guard.held() if guard is not None and self.may(Permission.HISTORY) else []

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """Render a template with its own context and that of all pages."""
        secret: str | None = getattr(self._request.state, "session", None)
        theme = self._request.cookies.get(THEME_COOKIE)
        text = (
            environment()
            .get_template(template)
            .render(
                t=self.say,
                static=static_files().address,
                may=self.may,
                caller=self.caller,
                held_deletions=self.held_deletions(),
                csrf="" if secret is None else csrf_token(secret),
                theme=theme if theme in ("light", "dark") else "auto",
                languages={code: one("language") for code, one in messages.languages().items()},
                path=self._request.url.path,
                script_texts=data(self.say.for_scripts()),
                **context,
            )
        )
        headers = {"Content-Security-Policy": _POLICY, "Vary": "Accept-Language, Cookie"}
        return HTMLResponse(text, status, headers)


async def _page(request: Request) -> Page:
    return Page(request)


PagePart = Annotated[Page, Depends(_page)]


class PageRoute(APIRoute):
    """Route that answers errors with pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that turns problems into pages."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                return error_page(request, Problem("invalid-request", "The address has an invalid part."))
            except Exception as error:
                return error_page(request, problem_responses.to_problem(error))

        return handle_page


def error_page(request: Request, problem: Problem) -> Response:
    kind = problems.TYPES[problem.name]
    request.state.problem = problem.name
    answer = Page(request).render(
        "error.html", kind.status, problem=problem, request_id=request.state.request_id
    )
    after = problem.retry_after or kind.retry_after
    if after is not None:
        answer.headers["Retry-After"] = str(after)
    return answer
