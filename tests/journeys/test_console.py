"""Test the demo's page in a real browser."""

from pathlib import Path

from tests.kit.clients.browser import open_page
from tests.kit.server.demo import demo

STATE = "document.getElementById('state').textContent"
CELLS = "[...document.querySelectorAll('#rows tr')].map(row => row.innerText.split('\\t'))"
BOOK = CELLS.replace("#rows", "#book")
TRADES = CELLS.replace("#rows", "#trades")


async def test_page_shows_moving_prices(tmp_path: Path) -> None:
    with demo() as served:
        async with open_page(served.url, tmp_path) as page:
            await page.until(f"{STATE} === 'live' && {CELLS}.length === 4")
            rows = await page.evaluate(CELLS)
            assert sorted(row[0] for row in rows) == [
                "BTCUSDT",
                "ETHUSDT",
                "EURUSD",
                "SOLUSDT",
            ]
            assert all(float(row[1]) < float(row[2]) for row in rows)
            await page.until(f"{BOOK}.length === 10 && {BOOK}[9][3] > 0 && {TRADES}[0][1] > 0")
            quantity, bid, ask, _ = map(float, (await page.evaluate(BOOK))[0])
            assert quantity > 0
            assert bid < ask
            await page.evaluate("[...document.querySelectorAll('#rows tr')][1].click()")
            await page.until(f"{BOOK}[0][1] > 0 && {BOOK}[0][1] < 10000")
            count = int(rows[0][5])
            await page.until(f"+{CELLS}[0][5] > {count + 2}")


async def test_page_shows_a_lost_connection(tmp_path: Path) -> None:
    with demo() as served:
        async with open_page(served.url, tmp_path) as page:
            await page.until(f"{STATE} === 'live'")
            served.process.kill()
            await page.until(f"{STATE}.startsWith('connection lost')")
