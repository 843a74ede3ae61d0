"""The page as a web application, for the browser of this machine alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpubp.dashboard.views import Shelf
from gpubp.errors import missing_extra

HERE = Path(__file__).parent
HOSTS = ("127.0.0.1", "localhost")
# Nothing but the page's own files is ever loaded or asked.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_FILES = {"page.css": "text/css", "page.js": "text/javascript"}


def application(given: Sequence[Path]) -> Any:
    """The Starlette application.

    Args:
        given: folders of runs, CSV logs, checkpoints.

    Raises:
        MissingExtraError: one of its packages is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import HTMLResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise missing_extra(str(error.name or "starlette"), "dashboard", "the dashboard") from error
    shelf = Shelf(given)
    pages = Environment(loader=FileSystemLoader(HERE), autoescape=True)
    template = pages.get_template("page.html")

    def page(request: Any) -> Any:
        """The whole page, or what stands in it if it has changed since the browser's last look."""
        mark = f'"{hashlib.sha256(repr(shelf.state()).encode()).hexdigest()}"'
        headers = {"ETag": mark, "Cache-Control": "no-cache", **_HEADERS}
        if request.headers.get("if-none-match") == mark:
            return Response(status_code=304, headers=headers)
        views, inner = shelf.views(), request.url.path == "/runs"
        text = template.render(views=views, comparison=shelf.comparison(views), inner=inner)
        return HTMLResponse(text, headers=headers)

    def file(request: Any) -> Any:
        name = request.url.path.removeprefix("/")
        text = (HERE / name).read_text(encoding="utf-8")
        return Response(text, media_type=_FILES[name], headers=_HEADERS)

    routes = [Route("/", page), Route("/runs", page), *(Route(f"/{n}", file) for n in _FILES)]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))
    return Starlette(routes=routes, middleware=[trusted])
