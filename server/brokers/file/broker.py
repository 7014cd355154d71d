"""The broker of a single process that survives it: memory, with a journal on the disk.

A message that is kept, or has an id, is written first, then applied and delivered: nobody sees a
position that a crash could give to another message. The newest states of all other channels
follow within a second; after a crash their channels restart with a new epoch.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from client_sdk.contract import ErrorCode
from server.brokers.file.restoring import Restorer
from server.brokers.file.retention import Retention
from server.brokers.file.schema import (
    CLAIMS,
    ENTRIES,
    FORGET_ENTRIES,
    FORGET_STATES,
    LOST,
    STATES,
    Row,
)
from server.brokers.file.store import FileStore
from server.brokers.memory.broker import MemoryBroker, MemoryConfig
from server.core.errors import FloorcastError, WriteConflict
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Entry, Position, Receipt, Reset
from server.core.log.idempotency import Claim
from server.ports import Clock, ignore
from server.tasks import TaskOwner, cancel_and_wait

_STATES_SECONDS = 0.5
_STATES_PER_TURN = 256


@dataclass(slots=True, eq=False)
class _PendingPublish:
    """A message that waits for its commit."""

    broker: "FileBroker"
    entry: Entry
    claim: Claim | None
    full_state: Callable[[], bytes] | None
    in_history: bool
    owner: Owner
    done: "asyncio.Future[Receipt]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, failure: FloorcastError | None) -> None:
        if failure is not None:
            self.broker.drop(self)
            self.give_up(failure)
            return
        if self.done.done():
            self.freeze_state()
        receipt = self.broker.apply(self)
        if not self.done.done():
            self.done.set_result(receipt)

    def give_up(self, failure: FloorcastError) -> None:
        if not self.done.done():
            self.done.set_exception(failure)
            # A cancelled publisher does not ask.
            self.done.exception()

    def freeze_state(self) -> None:
        """Keep the full state with this change: a publisher that stops waiting reverts it."""
        if self.full_state is not None:
            state = self.full_state()
            self.full_state = lambda: state


@dataclass(slots=True, eq=False)
class _StatesWritten:
    """The states in one commit; a failure makes them outdated again."""

    outdated: set[str]
    writing: "dict[str, _StatesWritten]"
    channels: list[str]

    def settle(self, failure: FloorcastError | None) -> None:
        for each in self.channels:
            if self.writing.get(each) is self:
                del self.writing[each]
        if failure is not None:
            self.outdated.update(self.channels)

    def give_up(self, failure: FloorcastError) -> None:
        pass


@dataclass(slots=True, eq=False)
class _Deleted:
    """The forgotten channels in one commit; a failure makes them undeleted again."""

    undeleted: set[str]
    channels: list[str]

    def settle(self, failure: FloorcastError | None) -> None:
        if failure is not None:
            self.undeleted.update(self.channels)

    def give_up(self, failure: FloorcastError) -> None:
        pass


class FileBroker:
    """Implements `Broker` for one process; `publish` delivers before it returns."""

    def __init__(
        self,
        clock: Clock,
        store: FileStore,
        tasks: TaskOwner,
        *,
        config: MemoryConfig | None = None,
    ) -> None:
        self._clock = clock
        self._store = store
        self._tasks = tasks
        self._config = config or MemoryConfig()
        self._memory = self._create_memory()
        self._retention = Retention(self._memory, store, {}, {})
        # By channel and by claim's key: the newest message that waits for its commit.
        self._pending: dict[str, _PendingPublish] = {}
        self._pending_claims: dict[str, _PendingPublish] = {}
        # Channels whose newest state is not in the file, or not as it is now.
        self._outdated: set[str] = set()
        # Channels whose state waits for a commit, with the newest one.
        self._writing: dict[str, _StatesWritten] = {}
        # Channels that are forgotten, and are still in the file.
        self._undeleted: set[str] = set()
        # Books with changes that wait for their commit, with the end of the newest publish.
        self._changing: dict[str, asyncio.Future[None]] = {}
        # Channels of changes whose state is from before a crash: only a snapshot continues them.
        self._lost: set[str] = set()
        self._is_running = False
        self._task: asyncio.Task[None] | None = None

    def _create_memory(self) -> MemoryBroker:
        # A new base epoch each time: no head of an earlier run may match a channel of this one.
        return MemoryBroker(self._clock, epoch=secrets.token_hex(4), config=self._config)

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        await self._store.open()
        self._memory = self._create_memory()
        restorer = Restorer(self._memory, self._clock)
        try:
            await self._store.run(restorer.restore)
        except BaseException:
            await self._store.close(is_complete=False)
            raise
        self._outdated, self._writing, self._lost = set(), {}, restorer.lost
        self._undeleted.clear()
        self._retention = Retention(
            self._memory, self._store, restorer.first_seqs, restorer.last_seqs
        )
        await self._memory.start(deliver, on_state=on_state)
        self._is_running = True
        self._task = self._tasks.keep(self._maintain, "floorcast-broker")

    async def stop(self) -> None:
        if self._task is None:
            return
        self._is_running = False
        await cancel_and_wait(self._task)
        self._task = None
        await self._wait_for_commit()
        # Without an await in between: nothing is published after the last states are written.
        empty = self._memory.empty_channels()
        await self._memory.stop()
        self._store.add(
            STATES,
            *(
                _state_row(
                    Entry(channel, Position(epoch, 0), 0, b""), is_exact=True, is_change=False
                )
                for channel, epoch in empty.items()
            ),
        )
        await self._write_states()
        await self._wait_for_commit()
        await self._store.close(is_complete=not self._outdated)

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        while claim.key in self._pending_claims:
            await self._store.commit()
        return await self._memory.find(channel, claim)

    async def publish(
        self,
        channel: str,
        data: bytes,
        ts_ms: int,
        *,
        kind: str = "update",
        claim: Claim | None = None,
        full_state: Callable[[], bytes] | None = None,
        in_history: bool = False,
        expected_head: Position | None = None,
        owner: Owner = SERVER,
    ) -> Receipt:
        if not in_history and claim is None and channel not in self._pending:
            if not self._is_running:
                raise _stopped()
            # As `MemoryBroker.publish`, whose coroutine costs a tenth more.
            head = self._memory.head_of(channel)
            if expected_head is not None and expected_head != head:
                raise WriteConflict
            if not head.seq:
                self._memory.check_room()
            entry = Entry(channel, Position(head.epoch, head.seq + 1), ts_ms, data, kind)
            if kind == "snapshot":
                self._lost.discard(channel)
            self._outdated.add(channel)
            return self._memory.apply(entry, full_state=full_state)
        self._store.check_room()
        while expected_head is not None and channel in self._pending:
            await self._store.commit()
        if claim is not None:
            published = await self.find(channel, claim)
            if published is not None:
                return published
        # No await from here on: the position follows on the newest one.
        if not self._is_running:
            raise _stopped()
        head = self._next_head(channel, expected_head)
        entry = Entry(channel, Position(head.epoch, head.seq + 1), ts_ms, data, kind)
        pending = _PendingPublish(self, entry, claim, full_state, in_history, owner)
        self._add(pending)
        if full_state is None:
            return await pending.done
        ended = self._changing[channel] = asyncio.get_running_loop().create_future()
        try:
            return await pending.done
        except BaseException:
            pending.freeze_state()
            raise
        finally:
            # In one step with this the publisher reverts a change that failed.
            ended.set_result(None)
            if self._changing[channel] is ended:
                del self._changing[channel]

    async def head(self, channel: str) -> Position:
        return await self._memory.head(channel)

    async def latest(self, channel: str) -> Entry | None:
        # The state of a book has a change already whose position it does not have yet.
        while channel in self._changing:
            await asyncio.wait([self._changing[channel]])
        return await self._memory.latest(channel)

    async def is_rolled_back(self, channel: str) -> bool:
        return channel in self._lost

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        return await self._memory.since(channel, position)

    async def before(self, channel: str, seq: int | None, limit: int) -> list[Entry]:
        return await self._memory.before(channel, seq, limit)

    async def forget(self, channel: str, *, silent_since_ms: int | None = None) -> bool:
        # A commit deletes before it writes: its state must not be in the same one.
        while channel in self._pending or channel in self._writing:
            try:
                await self._store.commit()
            except FloorcastError:
                # Otherwise what was to be written has been given up.
                if self._store.is_stuck or not self._is_running:
                    return False
        if not await self._memory.forget(channel, silent_since_ms=silent_since_ms):
            return False
        self._outdated.discard(channel)
        self._lost.discard(channel)
        self._retention.forget(channel)
        self._delete([channel])
        return True

    async def add_topic(self, channel: str, owner: Owner) -> None:
        await self._memory.add_topic(channel, owner)

    async def watch(self, channel: str) -> None:
        await self._memory.watch(channel)

    async def unwatch(self, channel: str) -> None:
        await self._memory.unwatch(channel)

    # --- writing

    async def _wait_for_commit(self) -> None:
        """Wait until all that is pending is settled or given up; its callers get the failures."""
        with contextlib.suppress(FloorcastError):
            await self._store.commit()

    def _next_head(self, channel: str, expected: Position | None) -> Position:
        """The position that the next message of a channel follows on."""
        pending = self._pending.get(channel)
        head = self._memory.head_of(channel) if pending is None else pending.entry.position
        if expected is not None and expected != head:
            raise WriteConflict
        if not head.seq:
            self._memory.check_room()
        return head

    def _add(self, pending: _PendingPublish) -> None:
        """Assign its position to a message, and write it."""
        entry, store = pending.entry, self._store
        channel, position = entry.channel, entry.position
        if channel in self._undeleted:
            self._delete([channel])
        self._pending[channel] = pending
        if pending.in_history:
            org, user = pending.owner
            store.add(
                ENTRIES,
                (
                    *(channel, position.seq, position.epoch, entry.ts_ms, entry.kind, entry.data),
                    *(org, user),
                ),
            )
        elif pending.full_state is None:
            store.add(STATES, _state_row(entry, is_exact=False, is_change=False))
        claim = pending.claim
        if claim is not None:
            self._pending_claims[claim.key] = pending
            org, user = claim.owner
            store.add(
                CLAIMS,
                (
                    *(claim.key, claim.digest, org, user, position.epoch, position.seq),
                    *(entry.ts_ms, int(self._clock.time() * 1000)),
                ),
            )
        store.add_waiter(pending)

    def drop(self, pending: _PendingPublish) -> None:
        """Forget a message that is settled."""
        entry, claim = pending.entry, pending.claim
        if self._pending.get(entry.channel) is pending:
            del self._pending[entry.channel]
        if claim is not None:
            self._pending_claims.pop(claim.key, None)

    def apply(self, pending: _PendingPublish) -> Receipt:
        """Apply and deliver a message that is written."""
        self.drop(pending)
        entry = pending.entry
        if entry.kind == "snapshot":
            self._lost.discard(entry.channel)
        if pending.in_history:
            self._retention.add(entry)
        else:
            self._outdated.add(entry.channel)
        return self._memory.apply(
            entry,
            claim=pending.claim,
            full_state=pending.full_state,
            in_history=pending.in_history,
            owner=pending.owner,
        )

    def _delete(self, channels: list[str]) -> None:
        """Delete forgotten channels from the file, before anything newer is written there."""
        self._undeleted.difference_update(channels)
        rows = [(channel,) for channel in channels]
        self._store.add(FORGET_ENTRIES, *rows)
        self._store.add(FORGET_STATES, *rows)
        self._store.add_waiter(_Deleted(self._undeleted, channels))

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(_STATES_SECONDS)
            if self._undeleted:
                self._delete([*self._undeleted])
            await self._write_states()
            self._trim()
            await self._store.run(lambda database: database.vacuum())

    async def _write_states(self) -> None:
        """Write the newest states of channels without a history, some in each turn of the loop."""
        outdated = [*self._outdated]
        for start in range(0, len(outdated), _STATES_PER_TURN):
            self._add_states(outdated[start : start + _STATES_PER_TURN])
            await asyncio.sleep(0)

    def _trim(self) -> None:
        """Delete what memory no longer keeps; newest entries stay as states, in the same commit."""
        config = self._config
        self._add_states([*self._retention.trim(config.idempotency_seconds, self._clock)])

    def _add_states(self, channels: list[str]) -> None:
        if undeleted := self._undeleted.intersection(channels):
            self._delete([*undeleted])
        self._outdated.difference_update(channels)
        current = [each for each in channels if not self._is_state_pending(each)]
        self._store.add(STATES, *filter(None, map(self._current_state, current)))
        written = _StatesWritten(self._outdated, self._writing, channels)
        self._writing.update(dict.fromkeys(channels, written))
        self._store.add_waiter(written)

    def _is_state_pending(self, channel: str) -> bool:
        """Whether a message that waits for its commit writes a newer state."""
        pending = self._pending.get(channel)
        return pending is not None and pending.full_state is None and not pending.in_history

    def _current_state(self, channel: str) -> Row | None:
        latest = self._memory.latest_of(channel)
        if latest is None:
            return None
        return _state_row(
            latest,
            is_exact=self._retention.is_last_kept(latest),
            is_change=LOST if channel in self._lost else self._memory.has_full_state(channel),
        )


def _stopped() -> FloorcastError:
    return FloorcastError(ErrorCode.SERVER_DRAINING, "the broker has stopped")


def _state_row(entry: Entry, *, is_exact: bool, is_change: int) -> Row:
    position = entry.position
    return (
        *(entry.channel, position.seq, position.epoch, entry.ts_ms, entry.kind, entry.data),
        *(is_exact, is_change),
    )
