"""What an endpoint is: its path, scope, models and handler."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from client_sdk.contract import Scope
from server.access import Principal
from server.web.api.reading import ApiRequest

RequestT = TypeVar("RequestT", bound=ApiRequest)

_PARAMETER = re.compile(r"\{(\w+)\}")


class Answer(BaseModel):
    """The base of all answers; fields that are None are left out."""

    model_config = ConfigDict(frozen=True)


class ClusterAnswer(Answer):
    """The base of answers that all nodes give together."""

    incomplete: list[str] = Field(
        default_factory=list,
        description="the nodes that did not answer in time: what they know is missing",
    )


@dataclass(frozen=True, slots=True)
class ApiCall:
    """Who calls, and what of the request is in no model."""

    principal: Principal
    request_id: str
    idempotency_key: str | None = None
    # Charges the caller for further messages beyond the first.
    charge_items: Callable[[int], None] = lambda count: None


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[RequestT]):
    """One call of the API.

    The request model gets the fields that `path` names, and the others from the query, or for POST
    and PUT from the JSON body.
    """

    method: str
    path: str
    scope: Scope
    summary: str
    request: type[RequestT]
    answer: type[Answer]
    handle: Callable[[ApiCall, RequestT], Awaitable[Answer]]
    # Logged at INFO, with the caller: it acts on other users.
    is_audited: bool = False

    @property
    def has_body(self) -> bool:
        """Whether the request's fields come from a JSON body."""
        return self.method in ("POST", "PUT")

    @property
    def path_fields(self) -> tuple[str, ...]:
        """The fields of the request that are in the path."""
        return tuple(_PARAMETER.findall(self.path))

    @property
    def name(self) -> str:
        """The endpoint as counters and logs name it."""
        return f"{self.method} {self.path}"


# Each handler gets only what its own model has validated.
AnyEndpoint = Endpoint[Any]
