"""The demo's page, in a real browser: prices move in it, and it comes back by itself."""

from pathlib import Path

from tests.kit.browser import browser_at
from tests.kit.demo import demo

STATE = "document.getElementById('state').textContent"
CELLS = "[...document.querySelectorAll('#rows tr')].map(row => row.innerText.split('\\t'))"


async def test_the_page_shows_prices_that_move(tmp_path: Path) -> None:
    with demo() as started:
        async with browser_at(started.url, tmp_path) as page:
            await page.until(f"{STATE} === 'live' && {CELLS}.length === 4")
            rows = await page.evaluate(CELLS)
            assert sorted(row[0] for row in rows) == [
                "BTCUSDT",
                "ETHUSDT",
                "EURUSD",
                "SOLUSDT",
            ]
            assert all(float(row[1]) < float(row[2]) for row in rows)
            seen = int(rows[0][5])
            await page.until(f"+{CELLS}[0][5] > {seen + 2}")


async def test_the_page_says_so_when_the_server_has_gone(tmp_path: Path) -> None:
    with demo() as started:
        async with browser_at(started.url, tmp_path) as page:
            await page.until(f"{STATE} === 'live'")
            started.process.kill()
            await page.until(f"{STATE}.startsWith('connection lost')")
