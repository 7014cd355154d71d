"""Serves the demo's page at `/`: live prices over the plain Socket.IO protocol."""

from pathlib import Path

from aiohttp import web

_PAGE = Path(__file__).parent / "static" / "console.html"
# The page has its script and style inline and loads nothing from other origins.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_console(app: web.Application, *, token: str) -> None:
    """Serve the console with this token; anyone who can open the page can read the token."""
    page = _PAGE.read_text("utf-8").replace("{{token}}", token)

    async def console(request: web.Request) -> web.Response:
        return web.Response(
            text=page,
            content_type="text/html",
            headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"},
        )

    app.router.add_get("/", console)
