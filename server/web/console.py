"""Serves the console at `/`: a page, its script and style, and the token of the demo."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from client_sdk import __version__

# Built from the sources in console/ of the repository.
_FOLDER = Path(__file__).parent / "static"
_FILES = {
    "console.js": "text/javascript",
    "console.css": "text/css",
    "licenses.txt": "text/plain",
}
_NONCE = "CSP_NONCE"
# The page loads nothing from other origins; a script or style needs the nonce of the response.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)

_Handler = Callable[[web.Request], Awaitable[web.Response]]


def add_console(
    app: web.Application, *, token: str | None, admits_page_of: Callable[[web.Request], bool]
) -> None:
    """Serve the console; without a token its page asks for one.

    Anyone who can open the page can read the token. `admits_page_of` says whether a page at the
    address of a request may connect: it keeps the token from a page under an attacker's name
    that resolves to this machine.
    """
    page = (_FOLDER / "index.html").read_text("utf-8")

    async def console(request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        headers = {
            "Content-Security-Policy": _POLICY.format(nonce=nonce),
            "Referrer-Policy": "no-referrer",
        }
        return web.Response(
            text=page.replace(_NONCE, nonce), content_type="text/html", headers=headers
        )

    async def session(request: web.Request) -> web.Response:
        if not admits_page_of(request):
            return web.json_response({"error": "server.origins does not allow it"}, status=403)
        return web.json_response({"token": token, "version": __version__})

    app.router.add_get("/", console)
    app.router.add_get("/console/session", session)
    for name, content_type in _FILES.items():
        app.router.add_get(f"/console/{name}", _serve_file(name, content_type))


def _serve_file(name: str, content_type: str) -> _Handler:
    body = (_FOLDER / "console" / name).read_bytes()
    tag = hashlib.sha256(body).hexdigest()[:16]

    async def serve(request: web.Request) -> web.Response:
        # A browser keeps the file, and asks each time whether it is still this one.
        headers = {"Cache-Control": "no-cache"}
        if any(each.value == tag for each in request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        else:
            response = web.Response(
                body=body, content_type=content_type, charset="utf-8", headers=headers
            )
        response.etag = tag
        return response

    return serve
