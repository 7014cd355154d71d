"""The page at `/` of a demo: prices that move, in a stock client's own words."""

from pathlib import Path

from aiohttp import web

_PAGE = Path(__file__).parent / "static" / "console.html"
# The page is one file with its script and style inside; nothing is loaded from elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_console(app: web.Application, *, token: str) -> None:
    """Serve the console; it uses this token, which whoever reaches the page can read."""
    page = _PAGE.read_text("utf-8").replace("{{token}}", token)

    async def console(request: web.Request) -> web.Response:
        return web.Response(
            text=page,
            content_type="text/html",
            headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"},
        )

    app.router.add_get("/", console)
