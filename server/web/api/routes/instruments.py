"""Reading and setting instruments."""

from typing import Annotated

from pydantic import ConfigDict, Field

from client_sdk.contract import ErrorCode, Instrument, InstrumentData, Scope
from client_sdk.contract.requests import SymbolMatch
from server.core.errors import AccessError, RequestError
from server.services import Instruments
from server.web.api.endpoints import Answer, AnyEndpoint, ApiCall, Endpoint
from server.web.api.paging import Cursor, Limit
from server.web.api.reading import ApiRequest

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


class InstrumentRoutes:
    """The endpoints of instruments."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

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
        )

    async def _list(self, call: ApiCall, request: InstrumentsRequest) -> InstrumentsAnswer:
        found, has_more = self._instruments.find(
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
        instrument = await self._instruments.put(request.symbol, fields)
        return InstrumentAnswer.model_validate(instrument.body())


def _check_allowed(call: ApiCall, symbol: str) -> None:
    if not call.principal.may_use_symbol(symbol):
        raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {symbol}")
