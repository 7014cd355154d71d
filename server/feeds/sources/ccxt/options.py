"""The options of the feed `ccxt`."""

from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from client_sdk.contract import Stream
from server.feeds.sources.options import SourceOptions

PUBLIC_STREAMS = (Stream.PRICE, Stream.TRADES, Stream.ORDERBOOK)


def _as_list(value: object) -> object:
    """Names from the environment are separated by commas."""
    if isinstance(value, str):
        return [each.strip() for each in value.split(",") if each.strip()]
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CcxtOptions(SourceOptions):
    """`[feed.ccxt]`."""

    # The name that ccxt has for the venue; in `ccxt:kraken` it stands after the colon.
    venue: str = ""
    # Otherwise `feed.symbols`.
    symbols: Names = ()
    streams: Annotated[tuple[Stream, ...], BeforeValidator(_as_list)] = Field(
        PUBLIC_STREAMS, min_length=1
    )
    # Levels a side to publish, and to ask the venue for: None asks for what it sends anyway.
    depth: Annotated[int, Field(ge=1, le=5000)] = 50
    venue_depth: Annotated[int, Field(ge=1)] | None = None
    # Watch at the venue only what somebody listens to.
    on_demand: bool = False
    # The test system of the venue.
    sandbox: bool = False
    hostname: str | None = None
    # Merged into the addresses of ccxt, such as { api = { public = "http://localhost:1" } }.
    urls: dict[str, object] = Field(default_factory=dict, repr=False)
    # ccxt's own options of the venue.
    options: dict[str, object] = Field(default_factory=dict, repr=False)
    # What ccxt passes on to the venue, by stream: { PRICE = { name = "ticker" } }.
    params: dict[Stream, dict[str, object]] = Field(default_factory=dict)
    # Keep the venue's limit of requests.
    rate_limit: bool = True
    # Without any update for so long, the venue counts as failed; 0 for never.
    silent_seconds: Seconds = 30.0
    # The limit of a request, and of the connection.
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10.0
    # Older trades are not published: the venue sends them again when it is watched again, and
    # `market.idempotency_seconds` is how long a published one is known.
    trade_seconds: Annotated[float, Field(gt=0)] = 100.0
    # Trades of a symbol to fetch after the connection was away; 0 for none.
    fill_trades: Annotated[int, Field(ge=0, le=50_000)] = 1000
    # Check the checksums of books that ccxt does not check.
    checksum: bool = True

    @field_validator("streams")
    @classmethod
    def _check_streams(cls, streams: tuple[Stream, ...]) -> tuple[Stream, ...]:
        if any(each not in PUBLIC_STREAMS for each in streams):
            raise ValueError("a venue has PRICE, TRADES and ORDERBOOK")
        return tuple(dict.fromkeys(streams))
