"""Reading and setting instruments, and reading candles."""

from typing import Annotated

from pydantic import ConfigDict, Field

from client_sdk.contract import Bar, ErrorCode, Instrument, InstrumentData, Scope
from client_sdk.contract.requests import SymbolMatch
from server.core.errors import AccessError, RequestError
from server.core.limits.shares import Owner
from server.services import Candles, Instruments
from server.web.api.endpoints import Answer, AnyEndpoint, ApiCall, Endpoint
from server.web.api.paging import Cursor, Limit
from server.web.api.reading import FROM_TEXT, ApiRequest

Symbol = Annotated[str, Field(min_length=1, max_length=32, examples=["BTCUSDT"])]


class InstrumentsRequest(ApiRequest):
    """Symbols, those that match a pattern such as `BTC*`."""

    match: SymbolMatch = "*"
    limit: Limit = 100
    cursor: Cursor | None = None


class InstrumentsAnswer(Answer):
    """Instruments by symbol."""

    instruments: list[Instrument]
    next_cursor: str | None = None


class InstrumentRequest(ApiRequest):
    """One symbol."""

    symbol: Symbol


class PutInstrumentRequest(ApiRequest, InstrumentData):
    """Reference data of a symbol: other fields stay, and null removes one."""

    model_config = ConfigDict(extra="allow")

    symbol: Symbol


class InstrumentAnswer(Answer, Instrument):
    """An instrument."""


class CandlesRequest(ApiRequest):
    """The newest bars of a symbol, or those that begin before a time."""

    symbol: Symbol
    interval: Annotated[str, Field(examples=["1m"], max_length=3)]
    limit: Annotated[int, Field(ge=1, le=1000), FROM_TEXT] = 500
    before: (
        Annotated[int, Field(ge=0, le=2**53, description="in ms since 1970"), FROM_TEXT] | None
    ) = None


class CandlesAnswer(Answer):
    """Bars, oldest first."""

    symbol: str
    interval: str
    bars: list[Bar]


class InstrumentRoutes:
    """The endpoints of instruments and candles."""

    def __init__(self, instruments: Instruments, candles: Candles) -> None:
        self._instruments = instruments
        self._candles = candles

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """All endpoints of this room."""
        return (
            Endpoint(
                "GET",
                "/instruments",
                Scope.MARKET_READ,
                "List instruments",
                InstrumentsRequest,
                InstrumentsAnswer,
                self._list,
            ),
            Endpoint(
                "GET",
                "/instruments/{symbol}",
                Scope.MARKET_READ,
                "Read an instrument",
                InstrumentRequest,
                InstrumentAnswer,
                self._read,
            ),
            Endpoint(
                "PUT",
                "/instruments/{symbol}",
                Scope.MARKET_PUBLISH,
                "Set reference data or the trading state of a symbol",
                PutInstrumentRequest,
                InstrumentAnswer,
                self._put,
            ),
            Endpoint(
                "GET",
                "/candles/{symbol}",
                Scope.MARKET_READ,
                "Read candles",
                CandlesRequest,
                CandlesAnswer,
                self._read_candles,
            ),
        )

    async def _list(self, call: ApiCall, request: InstrumentsRequest) -> InstrumentsAnswer:
        found, has_more = await self._instruments.find(
            call.principal,
            pattern=request.match,
            after=request.cursor or "",
            limit=request.limit,
        )
        return InstrumentsAnswer(
            instruments=[Instrument.model_validate(each.body()) for each in found],
            next_cursor=found[-1].symbol if has_more else None,
        )

    async def _read(self, call: ApiCall, request: InstrumentRequest) -> InstrumentAnswer:
        _check_allowed(call, request.symbol)
        instrument = self._instruments.table.get(request.symbol)
        if instrument is None:
            raise RequestError(
                ErrorCode.TOPIC_UNKNOWN, f"nobody has published anything of {request.symbol} yet"
            )
        return InstrumentAnswer.model_validate(instrument.body())

    async def _put(self, call: ApiCall, request: PutInstrumentRequest) -> InstrumentAnswer:
        _check_allowed(call, request.symbol)
        fields = request.model_dump(exclude_unset=True, exclude={"symbol"})
        instrument = await self._instruments.put(
            request.symbol, fields, Owner(*call.principal.user)
        )
        return InstrumentAnswer.model_validate(instrument.body())

    async def _read_candles(self, call: ApiCall, request: CandlesRequest) -> CandlesAnswer:
        found = await self._candles.find(
            call.principal, request.symbol, request.interval, request.limit, request.before
        )
        return CandlesAnswer.model_validate(found.body())


def _check_allowed(call: ApiCall, symbol: str) -> None:
    if not call.principal.may_use_symbol(symbol):
        raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {symbol}")
