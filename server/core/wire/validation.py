"""Translates pydantic's validation errors into request errors."""

from pydantic import ValidationError

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError

_MAX_PROBLEMS = 8
_MAX_WHERE = 200


def invalid_request(error: ValidationError, prefix: str = "") -> RequestError:
    """The error with the first problem as message and up to eight as details, without the data."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    problems = [
        {
            "where": ".".join(map(str, each["loc"]))[:_MAX_WHERE],
            "problem": each["msg"].removeprefix("Value error, "),
        }
        for each in found[:_MAX_PROBLEMS]
    ]
    first = problems[0]
    where = f"{first['where']}: " if first["where"] else ""
    return RequestError(
        ErrorCode.REQUEST_INVALID,
        f"{prefix}{where}{first['problem']}",
        details={"problems": problems},
    )
