"""Revoking tokens."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from client_sdk.contract import Scope
from server.core.revocations import Revocation
from server.services import TokenRevocation
from server.web.api.endpoints import Answer, AnyEndpoint, ApiCall, ClusterAnswer, Endpoint
from server.web.api.errors import HttpError
from server.web.api.paging import Cursor, Limit
from server.web.api.reading import ApiRequest
from server.web.api.routes.connections import UserId

_MAX_SECONDS = 10 * 366 * 86_400
# Far in the future as seconds, long over as milliseconds: a mistake is refused.
_MAX_TIME = 1e11


class RevokeRequest(ApiRequest):
    """The tokens of a user, or one token by its `jti`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": [one],
                    "properties": {one: {"type": "string"}, other: {"type": "null"}},
                }
                for one, other in (("user", "jti"), ("jti", "user"))
            ]
        }
    )

    user: UserId | None = None
    jti: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    before: Annotated[float, Field(ge=0, le=_MAX_TIME, allow_inf_nan=False)] | None = Field(
        default=None,
        description="tokens issued before this time, in seconds since 1970 as in their `iat`; "
        "for a user by default all that were issued until now",
    )
    seconds: Annotated[float, Field(gt=0, le=_MAX_SECONDS, allow_inf_nan=False)] | None = Field(
        default=None,
        description="how long such tokens may live: the revocation is forgotten after that; by "
        "default `auth.revocation_seconds`",
    )

    @model_validator(mode="after")
    def _check_subject(self) -> "RevokeRequest":
        if (self.user is None) == (self.jti is None):
            raise ValueError("give either user or jti")
        return self


class RevocationInfo(Answer):
    """Tokens that are refused; times are in seconds since 1970, as in tokens."""

    id: str
    user: str | None = None
    jti: str | None = None
    before: float | None = Field(default=None, description="refused if issued before")
    expires_at: float = Field(description="when the revocation is forgotten")


class RevokeAnswer(ClusterAnswer):
    """The revocation, and how many connections it ended."""

    revocation: RevocationInfo
    closed: int


class RevocationsRequest(ApiRequest):
    """The revocations of the token's org."""

    limit: Limit = 50
    cursor: Cursor | None = None


class RevocationsAnswer(Answer):
    """One page of revocations."""

    revocations: list[RevocationInfo]
    next_cursor: str | None = None


class LiftRequest(ApiRequest):
    """One revocation."""

    id: Annotated[str, Field(min_length=1, max_length=64)]


class LiftAnswer(Answer):
    """The revocation that is no more in force."""

    revocation: RevocationInfo


class TokenRoutes:
    """The endpoints of revoked tokens."""

    def __init__(self, revocation: TokenRevocation) -> None:
        self._revocation = revocation

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """All endpoints of this room."""
        return (
            Endpoint(
                "POST",
                "/tokens/revoke",
                Scope.ADMIN,
                "Revoke tokens",
                RevokeRequest,
                RevokeAnswer,
                self._revoke,
                is_audited=True,
            ),
            Endpoint(
                "GET",
                "/tokens/revoked",
                Scope.ADMIN,
                "List revocations",
                RevocationsRequest,
                RevocationsAnswer,
                self._list,
            ),
            Endpoint(
                "DELETE",
                "/tokens/revoked/{id}",
                Scope.ADMIN,
                "Lift a revocation",
                LiftRequest,
                LiftAnswer,
                self._lift,
                is_audited=True,
            ),
        )

    async def _revoke(self, call: ApiCall, request: RevokeRequest) -> RevokeAnswer:
        revocation, connections = await self._revocation.revoke(
            call.principal.org,
            user_id=request.user,
            token_id=request.jti,
            before=request.before,
            seconds=request.seconds,
        )
        return RevokeAnswer(
            revocation=_shown(revocation),
            closed=connections.value,
            incomplete=list(connections.incomplete),
        )

    async def _list(self, call: ApiCall, request: RevocationsRequest) -> RevocationsAnswer:
        found = self._revocation.page(call.principal.org, request.cursor or "", request.limit + 1)
        page = found[: request.limit]
        has_more = len(found) > len(page)
        return RevocationsAnswer(
            revocations=[_shown(each) for each in page],
            next_cursor=page[-1].id if has_more else None,
        )

    async def _lift(self, call: ApiCall, request: LiftRequest) -> LiftAnswer:
        revocation = await self._revocation.lift(call.principal.org, request.id)
        if revocation is None:
            raise HttpError(404, "there is no such revocation")
        return LiftAnswer(revocation=_shown(revocation))


def _shown(revocation: Revocation) -> RevocationInfo:
    return RevocationInfo(
        id=revocation.id,
        user=revocation.user_id,
        jti=revocation.token_id,
        before=revocation.before,
        expires_at=revocation.until,
    )
