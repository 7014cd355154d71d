"""The data of each stream, as publishers send and clients receive it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from client_sdk.contract.names import Stream

# Narrower than Python's `Decimal`, which accepts `1_000`, blanks and the digits of any script:
# a client in another language must read the same number. The short exponent keeps it finite.
# Groups that capture cost a quarter of the validation of a price.
DECIMAL_PATTERN = r"^-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?$"
# Without an exponent: a book looks up levels by price all the time.
LEVEL_PRICE_PATTERN = r"^-?[0-9]+(?:\.[0-9]+)?$"
QUANTITY_PATTERN = r"^[0-9]+(?:\.[0-9]+)?$"
# Per side and message; a publisher of a larger book sends its top.
MAX_LEVELS = 5000

# Kept as text: a price must come out exactly as it went in, trailing zeros included.
DecimalText = Annotated[str, Field(max_length=40, pattern=DECIMAL_PATTERN)]
LevelPrice = Annotated[str, Field(max_length=40, pattern=LEVEL_PRICE_PATTERN)]
Quantity = Annotated[str, Field(max_length=40, pattern=QUANTITY_PATTERN)]
# JSON has no tuples: a level arrives as a list, so only this type is not strict.
Level = Annotated[tuple[LevelPrice, Quantity], Field(strict=False)]
# The first bad level is enough: the errors of five thousand cost more than all else.
Levels = Annotated[list[Level], FailFast(), Field(max_length=MAX_LEVELS)]


class StreamData(BaseModel):
    """The base of stream data; publishers may add fields, except to a book."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class PriceData(StreamData):
    """The data of a PRICE message."""

    bid: DecimalText
    ask: DecimalText
    last: DecimalText
    volume: DecimalText


class BookData(StreamData):
    """Order book levels as `(price, quantity)`, best first; quantity 0 removes a level.

    The checksum is optional for publishers; the server compares a given one with its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bids: Levels
    asks: Levels
    checksum: Annotated[int, Field(ge=0, lt=2**32)] | None = None


class Trade(StreamData):
    """One trade."""

    id: Annotated[str, Field(min_length=1, max_length=64)] | int
    price: DecimalText
    qty: DecimalText
    side: Literal["buy", "sell"]
    ts: int


class TradesData(StreamData):
    """The data of a TRADES message."""

    trades: Annotated[list[Trade], FailFast(), Field(max_length=1000)]


class Bar(BaseModel):
    """A candle: the trades of one interval, which begins at `t` in ms; `n` is their number."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    t: int
    o: str
    h: str
    l: str  # noqa: E741
    c: str
    v: str
    n: int
    closed: bool


Name = Annotated[str, Field(min_length=1, max_length=128)]
# JSON fractions are not exact, so an amount is text or an integer.
Amount = DecimalText | int


class UserData(StreamData):
    """The data of a USER_DATA message: any object about the user."""


class BotStatus(StreamData):
    """The data of a BOT_STATUS message."""

    bot_id: Name | int | None = None
    status: Name | None = None


class RiskAlert(StreamData):
    """The data of a RISK_ALERTS message."""

    level: Name | int | None = None
    message: Annotated[str, Field(max_length=4096)] | None = None


class OrderUpdate(StreamData):
    """The data of an ORDER_UPDATES message."""

    order_id: Name | int | None = None
    symbol: Name | None = None
    side: Name | None = None
    status: Name | None = None
    price: Amount | None = None
    qty: Amount | None = None
    filled: Amount | None = None


STREAM_DATA: Mapping[Stream, type[StreamData]] = MappingProxyType(
    {
        Stream.PRICE: PriceData,
        Stream.ORDERBOOK: BookData,
        Stream.TRADES: TradesData,
        Stream.USER_DATA: UserData,
        Stream.BOT_STATUS: BotStatus,
        Stream.RISK_ALERTS: RiskAlert,
        Stream.ORDER_UPDATES: OrderUpdate,
    }
)
