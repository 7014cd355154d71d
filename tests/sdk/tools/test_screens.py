"""The panels of `floorcast tail` show what a person needs to know."""

from decimal import Decimal

from rich.console import Console, RenderableType

from client_sdk import Gap, GapReason
from client_sdk.contract import FeedState, PriceMessage, SessionMessage, UserJoined
from client_sdk.market.live_book import BookState
from client_sdk.tools.figures import figures_of
from client_sdk.tools.figures_table import figures_table
from client_sdk.tools.screens import LadderPanel, PricesPanel, RoomPanel, TapePanel
from tests.kit.clients.sdk import client_of
from tests.kit.server.in_process import running
from tests.sdk.tools.test_bench import trade


def text_of(drawn: RenderableType) -> str:
    """What a terminal of 100 columns shows, without spaces that only align."""
    console = Console(width=100, no_color=True)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(" ".join(line.split()) for line in captured.get().splitlines())


def price(seq: int, last: str) -> PriceMessage:
    data = {"bid": "1.00", "ask": "1.02", "last": last, "volume": "5"}
    body = {"stream": "PRICE", "symbol": "A", "type": "update", "epoch": "e1", "seq": seq}
    return PriceMessage.model_validate(
        {**body, "prev": seq - 1, "ts": 1, "merged": 3, "data": data}
    )


def test_prices_show_the_newest_value_of_a_symbol_and_its_feed() -> None:
    panel = PricesPanel()
    for seq, last in ((1, "1.01"), (2, "1.02")):
        panel.add(price(seq, last))
    [row] = [
        each
        for each in text_of(panel.render({"PRICE:A": FeedState.STALE})).splitlines()
        if each.startswith("A ")
    ]
    assert row.startswith("A 1.00 1.02 1.02 5 2 ")
    assert row.endswith("3 1 STALE")


async def test_ladder_shows_both_sides_and_the_spread() -> None:
    async with running() as node, client_of(node) as client:
        levels = {"bids": [["9", "1"], ["8", "2"]], "asks": [["10", "4"], ["11", "2"]]}
        await client.market.publish("ORDERBOOK:A", levels, type="snapshot")
        async with client.market.book("A") as book:
            state: BookState = book.now
            assert state.spread == Decimal(1)
            lines = text_of(LadderPanel("A", levels=1).render(state, 0)).splitlines()
    assert lines[0].startswith("A LIVE age ")
    assert [line for line in lines[1:] if line] == [
        "10 4 ████████████████",
        "spread 1 resyncs 0",
        "9 1 ████",
    ]


def test_tape_shows_a_gap_between_trades() -> None:
    panel = TapePanel(lines=10)
    panel.add(trade(0))
    panel.add(Gap("TRADES:A", "e1", 2, 4, GapReason.HISTORY))
    lines = text_of(panel.render()).splitlines()
    assert "TRADES:A missing from 2" in lines
    assert any(line.endswith("A buy 1 1") for line in lines)


def test_room_escapes_what_its_members_write() -> None:
    panel = RoomPanel("desk", 1, lines=10)
    joined = {"session_id": "desk", "user_id": "bob", "participant_count": 2, "ts": 1}
    panel.add_event(UserJoined.model_validate(joined))
    body = {
        "session_id": "desk",
        "epoch": "e1",
        "seq": 1,
        "id": "1",
        "user_id": "[bold]eve",
        "ts": 1,
    }
    panel.add(SessionMessage.model_validate({**body, "data": {"text": "[red]hi"}}))
    text = text_of(panel.render())
    assert text.startswith("desk: 2 in")
    assert 'eve {"text": "[red]hi"}' in text
    assert "[bold]eve" in text


def answer(messages: int) -> dict[str, object]:
    figures = {"connections": 3, "messages_in": messages}
    return {"nodes": [{"node": "n1", "figures": figures}], "incomplete": ["n2"]}


def test_figures_are_rates_between_two_rounds() -> None:
    before, now = figures_of(answer(100), at=10.0), figures_of(answer(150), at=12.0)
    lines = text_of(figures_table(now, before, "")).splitlines()
    assert "│ connections │ 3 │" in lines
    assert "│ messages_in /s │ 25 │" in lines
    assert "no answer from n2" in lines


def test_node_that_restarted_has_no_negative_rate() -> None:
    before, now = figures_of(answer(100), at=10.0), figures_of(answer(4), at=12.0)
    assert now.rates("n1", before) == {"messages_in": 0.0}
