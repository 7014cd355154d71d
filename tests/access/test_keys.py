"""Keys that an issuer publishes are fetched once, kept while good, and chosen with care."""

import asyncio

import pytest
from aiohttp import ClientConnectionError

from client_sdk.contract import ErrorCode
from server.access.keys import FixedKey, JwksKeys
from server.core.errors import AccessError
from tests.access.forge import ec_key, jwk, jwks
from tests.kit.clock import ManualClock
from tests.kit.patience import MAX_WAIT_SECONDS

URL = "https://issuer.example/keys"


class Issuer:
    """Serves what it is told to, and counts how often it is asked."""

    def __init__(self, *kids: str | None) -> None:
        self.request_count = 0
        self.response: bytes | Exception = b""
        self.ready = asyncio.Event()
        self.ready.set()
        self.publish(*kids)

    def publish(self, *kids: str | None) -> None:
        """Have keys with these ids; keys of one index are the same."""
        self.response = jwks(*(jwk(ec_key(which), kid) for which, kid in enumerate(kids)))

    async def fetch(self, url: str) -> bytes:
        assert url == URL
        self.request_count += 1
        await self.ready.wait()
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


def keys_of(issuer: Issuer, clock: ManualClock | None = None) -> JwksKeys:
    """A source that asks this issuer."""
    return JwksKeys(URL, "ES256", clock or ManualClock(), fetch=issuer.fetch)


async def assert_unknown(keys: JwksKeys, kid: str | None) -> None:
    """The source has no key for this id."""
    with pytest.raises(AccessError, match="key is not known") as caught:
        await keys.key(kid)
    assert caught.value.code is ErrorCode.AUTH_INVALID


async def test_keys_are_fetched_once_while_they_are_fresh() -> None:
    issuer, clock = Issuer("a", "b"), ManualClock()
    keys = keys_of(issuer, clock)
    assert await keys.key("a") == ec_key(0).public_key()
    assert await keys.key("b") == ec_key(1).public_key()
    clock.advance(299.5)
    await keys.key("a")
    assert issuer.request_count == 1


async def test_a_key_that_was_withdrawn_ends_when_the_keys_are_fetched_again() -> None:
    issuer, clock = Issuer("a", "b"), ManualClock()
    keys = keys_of(issuer, clock)
    await keys.key("b")
    issuer.publish("a")
    clock.advance(299.5)
    await keys.key("b")
    clock.advance(0.5)
    await assert_unknown(keys, "b")
    assert issuer.request_count == 2


async def test_a_new_key_is_found_before_the_old_ones_grow_stale() -> None:
    issuer, clock = Issuer("a"), ManualClock()
    keys = keys_of(issuer, clock)
    await keys.key("a")
    issuer.publish("a", "new")
    clock.advance(10)
    assert await keys.key("new") == ec_key(1).public_key()
    assert issuer.request_count == 2


async def test_made_up_key_ids_reach_the_issuer_at_most_once_a_pause() -> None:
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
async def test_a_refresh_that_fails_leaves_the_old_keys(
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


async def test_an_issuer_that_is_back_is_heard_after_the_pause() -> None:
    issuer, clock = Issuer(), ManualClock()
    issuer.response = OSError("away")
    keys = keys_of(issuer, clock)
    await assert_unknown(keys, "a")
    issuer.publish("a")
    await assert_unknown(keys, "a")
    clock.advance(10)
    assert await keys.key("a")


async def test_an_issuer_that_withdraws_every_key_is_obeyed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    issuer, clock = Issuer("a"), ManualClock()
    keys = keys_of(issuer, clock)
    await keys.key("a")
    issuer.publish()
    clock.advance(300)
    await assert_unknown(keys, "a")
    assert "no key for the configured algorithm" in caplog.text


async def test_an_issuer_that_never_answers_is_given_up() -> None:
    issuer = Issuer("a")
    issuer.ready.clear()
    keys = JwksKeys(URL, "ES256", ManualClock(), fetch=issuer.fetch, fetch_seconds=0.01)
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        await assert_unknown(keys, "a")


async def until_requested(issuer: Issuer) -> None:
    """Let others run until the issuer is asked."""
    while not issuer.request_count:
        await asyncio.sleep(0)


async def test_many_who_ask_at_once_make_one_request() -> None:
    issuer = Issuer("a")
    issuer.ready.clear()
    keys = keys_of(issuer)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(keys.key("a")) for _ in range(20)]
        await until_requested(issuer)
        issuer.ready.set()
    assert [each.result() for each in asking] == [ec_key(0).public_key()] * 20
    assert issuer.request_count == 1


async def test_one_who_goes_away_does_not_take_the_answer_from_the_others() -> None:
    issuer = Issuer("a")
    issuer.ready.clear()
    keys = keys_of(issuer)
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(keys.key("a"))
        await until_requested(issuer)
        staying = group.create_task(keys.key("a"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        issuer.ready.set()
    assert staying.result() == ec_key(0).public_key()
    assert issuer.request_count == 1


@pytest.mark.parametrize("kid", ["a", None])
async def test_a_token_without_key_id_is_taken_only_where_there_is_one_key(
    kid: str | None,
) -> None:
    assert await keys_of(Issuer(kid)).key(None) == ec_key(0).public_key()
    await assert_unknown(keys_of(Issuer("a", "b")), None)
    await assert_unknown(keys_of(Issuer(None, None)), None)


async def test_a_key_without_id_answers_to_none() -> None:
    await assert_unknown(keys_of(Issuer(None)), "a")


async def test_of_two_keys_with_one_id_neither_is_meant() -> None:
    keys = keys_of(Issuer("a", "a", "b"))
    await assert_unknown(keys, "a")
    assert await keys.key("b")


async def test_a_fixed_key_is_for_every_key_id() -> None:
    keys = FixedKey("a secret")
    assert [await keys.key(kid) for kid in (None, "a")] == ["a secret"] * 2
