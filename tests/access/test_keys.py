"""Tests caching and selection of an issuer's keys."""

import asyncio

import jwt
import pytest
from aiohttp import ClientConnectionError

from client_sdk.contract import ErrorCode
from server.access.key_material import read_secret
from server.access.keys import FixedKey, JwksKeys
from server.core.counters import Counters
from server.core.errors import AccessError
from server.tasks import TaskOwner
from tests.access.forge import ec_key, jwk, jwks, public_pem
from tests.kit.clock import ManualClock
from tests.kit.patience import MAX_WAIT_SECONDS, until

URL = "https://issuer.example/keys"


class Issuer:
    """A fake issuer that counts its requests."""

    def __init__(self, *kids: str | None) -> None:
        self.request_count = 0
        self.response: bytes | Exception = b""
        self.ready = asyncio.Event()
        self.ready.set()
        self.publish(*kids)

    def publish(self, *kids: str | None) -> None:
        """Publish keys with these ids; keys at the same index are equal."""
        self.response = jwks(*(jwk(ec_key(which), kid) for which, kid in enumerate(kids)))

    async def fetch(self, url: str) -> bytes:
        assert url == URL
        self.request_count += 1
        await self.ready.wait()
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


def keys_of(issuer: Issuer, clock: ManualClock | None = None) -> JwksKeys:
    """A key source for this issuer."""
    return JwksKeys(URL, "ES256", clock or ManualClock(), TaskOwner(Counters()), fetch=issuer.fetch)


async def assert_unknown(keys: JwksKeys, kid: str | None) -> None:
    """Assert that the source has no key for this id."""
    with pytest.raises(AccessError, match="key is unknown") as caught:
        await keys.key(kid)
    assert caught.value.code is ErrorCode.AUTH_INVALID


async def test_fresh_keys_are_fetched_once() -> None:
    issuer, clock = Issuer("a", "b"), ManualClock()
    keys = keys_of(issuer, clock)
    assert await keys.key("a") == ec_key(0).public_key()
    assert await keys.key("b") == ec_key(1).public_key()
    clock.advance(299.5)
    await keys.key("a")
    assert issuer.request_count == 1


async def test_withdrawn_key_is_unknown_after_a_refresh() -> None:
    issuer, clock = Issuer("a", "b"), ManualClock()
    keys = keys_of(issuer, clock)
    await keys.key("b")
    issuer.publish("a")
    clock.advance(299.5)
    await keys.key("b")
    clock.advance(0.5)
    await assert_unknown(keys, "b")
    assert issuer.request_count == 2


async def test_unknown_key_id_fetches_new_keys() -> None:
    issuer, clock = Issuer("a"), ManualClock()
    keys = keys_of(issuer, clock)
    await keys.key("a")
    issuer.publish("a", "new")
    clock.advance(10)
    assert await keys.key("new") == ec_key(1).public_key()
    assert issuer.request_count == 2


async def test_forged_key_ids_cause_one_request_per_interval() -> None:
    issuer, clock = Issuer("a"), ManualClock()
    keys = keys_of(issuer, clock)
    for pause in range(3):
        for each in range(50):
            await assert_unknown(keys, f"made up {each}")
        assert issuer.request_count == pause + 1
        clock.advance(9.5)
        await assert_unknown(keys, "made up")
        assert issuer.request_count == pause + 1
        clock.advance(0.5)
    await keys.key("a")
    assert issuer.request_count == 3


@pytest.mark.parametrize(
    "failure",
    [
        OSError("away"),
        TimeoutError(),
        ClientConnectionError("refused"),
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b"\xff",
        b"[" * 5000,
    ],
    ids=repr,
)
async def test_failed_refresh_keeps_the_old_keys(
    failure: bytes | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    issuer, clock = Issuer("a"), ManualClock()
    keys = keys_of(issuer, clock)
    await keys.key("a")
    issuer.response = failure
    clock.advance(1000)
    for _ in range(3):
        assert await keys.key("a") == ec_key(0).public_key()
    assert issuer.request_count == 2
    assert [each.message for each in caplog.records] == ["could not fetch the JWKS"]


async def test_recovered_issuer_is_asked_after_the_interval() -> None:
    issuer, clock = Issuer(), ManualClock()
    issuer.response = OSError("away")
    keys = keys_of(issuer, clock)
    await assert_unknown(keys, "a")
    issuer.publish("a")
    await assert_unknown(keys, "a")
    clock.advance(10)
    assert await keys.key("a")


async def test_issuer_can_withdraw_every_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    issuer, clock = Issuer("a"), ManualClock()
    keys = keys_of(issuer, clock)
    await keys.key("a")
    issuer.publish()
    clock.advance(300)
    await assert_unknown(keys, "a")
    assert "no key for the configured algorithm" in caplog.text


async def test_fetch_of_a_silent_issuer_times_out() -> None:
    issuer = Issuer("a")
    issuer.ready.clear()
    keys = JwksKeys(
        URL,
        "ES256",
        ManualClock(),
        TaskOwner(Counters()),
        fetch=issuer.fetch,
        fetch_seconds=0.01,
    )
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        await assert_unknown(keys, "a")


async def until_requested(issuer: Issuer) -> None:
    """Wait until the issuer gets a request."""
    while not issuer.request_count:
        await asyncio.sleep(0)


async def test_concurrent_callers_share_one_request() -> None:
    issuer = Issuer("a")
    issuer.ready.clear()
    keys = keys_of(issuer)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keys.key("a")) for _ in range(20)]
        await until_requested(issuer)
        issuer.ready.set()
    assert [each.result() for each in tasks] == [ec_key(0).public_key()] * 20
    assert issuer.request_count == 1


async def test_cancelled_caller_does_not_cancel_the_request() -> None:
    issuer = Issuer("a")
    issuer.ready.clear()
    keys = keys_of(issuer)
    async with asyncio.TaskGroup() as group:
        cancelled = group.create_task(keys.key("a"))
        await until_requested(issuer)
        remaining = group.create_task(keys.key("a"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        issuer.ready.set()
    assert remaining.result() == ec_key(0).public_key()
    assert issuer.request_count == 1


@pytest.mark.parametrize("kid", ["a", None])
async def test_token_without_key_id_needs_a_single_key(
    kid: str | None,
) -> None:
    assert await keys_of(Issuer(kid)).key(None) == ec_key(0).public_key()
    await assert_unknown(keys_of(Issuer("a", "b")), None)
    await assert_unknown(keys_of(Issuer(None, None)), None)


async def test_key_without_id_matches_no_key_id() -> None:
    await assert_unknown(keys_of(Issuer(None)), "a")


async def test_two_keys_with_the_same_id_match_nothing() -> None:
    keys = keys_of(Issuer("a", "a", "b"))
    await assert_unknown(keys, "a")
    assert await keys.key("b")


async def test_fixed_key_matches_every_key_id() -> None:
    secret = read_secret("a secret")
    keys = FixedKey(secret)
    assert [await keys.key(kid) for kid in (None, "a")] == [secret] * 2


def test_public_key_is_no_secret() -> None:
    with pytest.raises(jwt.InvalidKeyError):
        read_secret(public_pem(ec_key()).decode())


async def test_failure_of_a_refresh_that_nobody_awaits_is_counted() -> None:
    issuer, counters = Issuer("a"), Counters()
    issuer.ready.clear()
    keys = JwksKeys(URL, "ES256", ManualClock(), TaskOwner(counters), fetch=issuer.fetch)
    caller = asyncio.create_task(keys.key("a"))
    await until_requested(issuer)
    caller.cancel()
    issuer.response = RuntimeError("a bug")
    issuer.ready.set()
    await asyncio.wait({caller})
    await until(lambda: counters.total("tasks.failed") == 1)
