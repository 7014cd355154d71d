"""Pages of lists: an opaque cursor stands for the last item of the page before."""

import base64
import binascii
from typing import Annotated

from pydantic import Field

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError
from server.web.api.reading import QueryInteger

Limit = Annotated[QueryInteger, Field(ge=1, le=100, description="items of a page")]
Cursor = Annotated[
    str, Field(max_length=400, description="`next_cursor` of the page before; opaque")
]


def encode_cursor(last: str | None) -> str | None:
    """The cursor of the page after an item; None if there is none."""
    return None if last is None else base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str:
    """The item that a cursor stands for; empty at the beginning."""
    if cursor is None:
        return ""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise RequestError(ErrorCode.REQUEST_INVALID, "cursor: not one of this API") from None
