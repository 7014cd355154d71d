"""Asks the operator's webhook whether a user may do something, and caches its answers."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from client_sdk.contract import ErrorCode
from server.core.counters import Counters
from server.core.errors import AccessError
from server.hooks.endpoint import Endpoint, EndpointError
from server.ports import Clock
from server.tasks import TaskOwner

logger = logging.getLogger(__name__)

# After no answer, others are refused at once for so long.
_RETRY_AFTER_SECONDS = 1.0
_MAX_TTL_SECONDS = 86_400.0


class _Answer(BaseModel):
    """The webhook's answer; ignores fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    allow: StrictBool
    code: str | None = Field(default=None, max_length=64)
    message: str | None = Field(default=None, max_length=500)
    ttl_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


@dataclass(frozen=True, slots=True)
class AuthorizerConfig:
    """How many answers are cached, and how many questions may wait for one."""

    max_cached: int = 10_000
    max_waiting: int = 1_000


@dataclass(frozen=True, slots=True)
class _Cached:
    refusal: AccessError | None
    until: float


class WebhookAuthorizer:
    """Equal questions share one request and its cached answer."""

    def __init__(
        self,
        config: AuthorizerConfig,
        endpoint: Endpoint,
        clock: Clock,
        counters: Counters,
        tasks: TaskOwner,
    ) -> None:
        self._config = config
        self._endpoint = endpoint
        self._clock = clock
        self._counters = counters
        self._tasks = tasks
        # The oldest answer comes first.
        self._cache: OrderedDict[bytes, _Cached] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[AccessError | None]] = {}
        self._away_until = 0.0
        self._is_failing = False

    async def start(self) -> None:
        """Prepare requests."""
        await self._endpoint.start()

    async def stop(self) -> None:
        """Close all connections; questions are refused from now on."""
        await self._endpoint.stop()

    def check(self, question: Mapping[str, object]) -> Coroutine[Any, Any, bool] | bool:
        """Return True if the webhook allows it, at once if the answer is cached.

        Otherwise the returned coroutine must be awaited. Both raise `AccessError` for a refusal.
        """
        key = orjson.dumps(question, option=orjson.OPT_SORT_KEYS)
        cached = self._cache.get(key)
        if cached is None or cached.until <= self._clock.monotonic():
            return self._ask(key)
        self._count("cached")
        return _allow_or_raise(cached.refusal)

    async def _ask(self, key: bytes) -> bool:
        asking = self._asking.get(key)
        if asking is None:
            is_full = len(self._asking) >= self._config.max_waiting
            if is_full or self._clock.monotonic() < self._away_until:
                self._count("unavailable")
                raise _unavailable()
            asking = self._tasks.start(self._request(key), "floorcast-authorize")
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        # Others wait for the same answer: it goes on if one of them is cancelled.
        return _allow_or_raise(await asyncio.shield(asking))

    async def _request(self, key: bytes) -> AccessError | None:
        """The refusal, or None if the webhook allows it."""
        began = self._clock.monotonic()
        try:
            answer = _Answer.model_validate_json(await self._endpoint.post(key))
        except EndpointError as error:
            if not error.is_reached:
                self._away_until = self._clock.monotonic() + _RETRY_AFTER_SECONDS
            return self._fail(str(error))
        except ValidationError:
            return self._fail("malformed answer")
        self._is_failing = False
        seconds = self._clock.monotonic() - began
        self._counters.histogram("hooks.answer").observe(seconds)
        self._counters.add("hooks.authorize_milliseconds", int(seconds * 1000))
        refusal = None if answer.allow else _refusal(answer)
        self._count("allowed" if answer.allow else "refused")
        self._remember(key, refusal, answer.ttl_seconds)
        return refusal

    def _remember(self, key: bytes, refusal: AccessError | None, ttl_seconds: float) -> None:
        self._cache.pop(key, None)
        if not ttl_seconds:
            return
        until = self._clock.monotonic() + min(ttl_seconds, _MAX_TTL_SECONDS)
        self._cache[key] = _Cached(refusal, until)
        if len(self._cache) > self._config.max_cached:
            self._cache.popitem(last=False)

    def _fail(self, reason: str) -> AccessError:
        self._count("unavailable")
        if not self._is_failing:
            self._is_failing = True
            logger.error("the authorize webhook fails: %s", reason)
        return _unavailable()

    def _count(self, outcome: str) -> None:
        self._counters.add(f"hooks.authorize_{outcome}")


def _allow_or_raise(refusal: AccessError | None) -> bool:
    if refusal is not None:
        # A copy: the traceback of a shared one would grow.
        raise AccessError(refusal.code, refusal.message, retry_after_ms=refusal.retry_after_ms)
    return True


def _refusal(answer: _Answer) -> AccessError:
    try:
        code = ErrorCode(answer.code or ErrorCode.AUTH_FORBIDDEN)
    except ValueError:
        code = ErrorCode.AUTH_FORBIDDEN
    return AccessError(code, answer.message or "the application does not allow this")


def _unavailable() -> AccessError:
    return AccessError(
        ErrorCode.AUTH_UNAVAILABLE,
        "nobody can say now whether this is allowed: retry later",
        retry_after_ms=int(_RETRY_AFTER_SECONDS * 1000),
    )
