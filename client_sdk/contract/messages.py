"""What a server sends: bodies of events, and the data of each stream."""

from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from client_sdk.contract.codes import ErrorCode


def _finite_decimal(text: str) -> str:
    try:
        finite = Decimal(text).is_finite()
    except InvalidOperation:
        finite = False
    if not finite:
        raise ValueError("not a decimal number")
    return text


# Kept as the text that was sent: a price must come out exactly as it went in, zeros included.
DecimalText = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_finite_decimal)]


class Body(BaseModel):
    """A server may learn to say more: a client lets unknown fields be."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ErrorBody(Body):
    """Why something was refused."""

    code: ErrorCode
    message: str
    retry_after_ms: int | None = None
    details: dict[str, object] | None = None


class Welcome(Body):
    """The first event after connecting."""

    connection_id: str
    user_id: str
    org: str
    server_time: int
    ping_interval_ms: int
    resume_window_ms: int
    session_id: str | None = None


class Goodbye(Body):
    """The last event before the server ends a connection."""

    code: ErrorCode
    message: str
    reconnect: bool
    after_ms: int


class TokenExpiring(Body):
    """The token ends soon; `refresh_token` avoids a reconnect."""

    expires_in_ms: int


class PriceData(BaseModel):
    """The data of a PRICE message; publishers may add fields of their own."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    bid: DecimalText
    ask: DecimalText
    last: DecimalText
    volume: DecimalText
