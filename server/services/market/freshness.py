"""Sends heartbeats for quiet topics, and STALE if a feed stays silent or has failed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from client_sdk.contract import FeedState, Stream
from client_sdk.contract.names import topic_name
from server.core.deadlines import Deadlines
from server.core.market.topic_state import TopicState
from server.delivery import Hub
from server.delivery.channel import Channel
from server.ports import Clock

_MAX_STALE_FEEDS = 100


@dataclass(frozen=True, slots=True)
class FreshnessConfig:
    """Stale timeout per stream, and the heartbeat interval of quiet topics; 0 disables."""

    heartbeat_seconds: float = 15.0
    stale_seconds: Mapping[Stream, float] = field(default_factory=dict)


class Freshness:
    """One deadline per topic; a message only updates the channel's `active_at`."""

    def __init__(self, config: FreshnessConfig, hub: Hub, clock: Clock) -> None:
        self._config = config
        self._hub = hub
        self._clock = clock
        self._deadlines: Deadlines[str] = Deadlines()
        self._last_heartbeats: dict[str, float] = {}
        self._states: dict[str, tuple[Stream, TopicState]] = {}
        # Since when each feed is stale, and its channels.
        self._stale_feeds: dict[str, tuple[int, Collection[str]]] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, name: object) -> bool:
        return name in self._states

    def open(self, channel: Channel, stream: Stream, state: TopicState) -> None:
        """Monitor a topic; STALE at once if its last message is older than the timeout."""
        self._states[channel.name] = (stream, state)
        ts_ms = state.ts_ms
        if ts_ms is not None:
            silent_seconds = max(0.0, self._clock.time() - ts_ms / 1000)
            channel.set_active_at(self._clock.monotonic() - silent_seconds)
            stale_seconds = self._stale_seconds(channel)
            if 0 < stale_seconds <= silent_seconds:
                channel.set_stale(ts_ms)
        if channel.stale_since_ms is None:
            channel.set_stale(self._feed_stale_since(channel.name, ts_ms))
        self._last_heartbeats[channel.name] = self._clock.monotonic()
        self._schedule(channel)

    def close(self, name: str) -> None:
        """Stop monitoring a topic."""
        self._deadlines.cancel(name)
        self._last_heartbeats.pop(name, None)
        self._states.pop(name, None)

    def tick(self) -> None:
        """Send the heartbeats and STALE events that are due."""
        for name in self._hub.pop_live_again():
            live = self._hub.channel(name)
            if live is not None and name in self._states:
                self._schedule(live)
        now = self._clock.monotonic()
        for name in self._deadlines.pop_due(now):
            channel = self._hub.channel(name)
            if channel is None:
                continue
            stale_at, heartbeat_at = self._next_deadlines(channel)
            if stale_at is not None and now >= stale_at:
                silent_ms = int((now - channel.active_at) * 1000)
                since_ms = int(self._clock.time() * 1000) - silent_ms
                self._hub.set_stale(channel, since_ms)
            # If the write to its last subscriber fails, the topic is closed by now.
            if heartbeat_at is not None and now >= heartbeat_at and name in self._states:
                self._last_heartbeats[name] = now
                self.send_heartbeat(channel)
            if self._hub.channel(name) is channel:
                self._schedule(channel)
            else:
                self.close(name)

    def set_broker_up(self, up: bool) -> None:
        """Mark every topic stale while the broker is down."""
        now, now_ms = self._clock.monotonic(), int(self._clock.time() * 1000)
        for name in tuple(self._states):
            channel = self._hub.channel(name)
            if channel is None or channel.state.is_derived:
                continue
            stale_seconds = self._stale_seconds(channel)
            is_silent = 0 < stale_seconds <= now - channel.active_at
            if not up and channel.stale_since_ms is None:
                self._hub.set_stale(channel, now_ms)
            elif up and channel.stale_since_ms is not None and not is_silent:
                _, state = self._states[name]
                if self._feed_stale_since(name, state.ts_ms) is None:
                    self._hub.set_stale(channel, None)

    def set_trading_state(self, symbol: str, state: FeedState | None) -> None:
        """Send HALTED or CLOSED for the topics of a symbol; None if it trades again."""
        for stream in Stream:
            channel = self._hub.channel(topic_name(stream, symbol)) if stream.per_symbol else None
            if channel is not None:
                for each in (channel, *channel.derived):
                    self._set_trading_state(each, state)

    def _set_trading_state(self, channel: Channel, trading_state: FeedState | None) -> None:
        known = self._states.get(channel.name)
        if known is None:
            return
        known[1].set_trading_state(trading_state)
        # Its silence until now is no fault of the feed.
        channel.set_active_at(self._clock.monotonic())
        self._hub.set_stale(channel, None)
        self._schedule(channel)

    def set_feed_stale(self, feed: str, channels: Collection[str]) -> None:
        """Mark the topics of a feed stale; each is live again with its next message.

        Topics that are opened later are stale too, until `set_feed_live`.
        """
        now_ms = int(self._clock.time() * 1000)
        self._stale_feeds.pop(feed, None)
        self._stale_feeds[feed] = (now_ms, channels)
        if len(self._stale_feeds) > _MAX_STALE_FEEDS:
            # Of a node that is gone, for example.
            del self._stale_feeds[next(iter(self._stale_feeds))]
        for name in tuple(self._states):
            channel = self._hub.channel(name) if name in channels else None
            if channel is not None and channel.stale_since_ms is None:
                self._hub.set_stale(channel, now_ms)

    def set_feed_live(self, feed: str) -> None:
        """Record that a feed publishes again; its topics turn live with their messages."""
        self._stale_feeds.pop(feed, None)

    def stale_count(self) -> int:
        """The number of open topics that are stale."""
        channels = map(self._hub.channel, self._states)
        return sum(each is not None and each.stale_since_ms is not None for each in channels)

    def _feed_stale_since(self, name: str, ts_ms: int | None) -> int | None:
        """Since when a topic's feed is stale; None if somebody has published after that."""
        for since_ms, channels in self._stale_feeds.values():
            if name in channels and (ts_ms is None or ts_ms <= since_ms):
                return since_ms
        return None

    def send_heartbeat(self, channel: Channel) -> None:
        """Send a heartbeat with the topic's position to the clients that have it."""
        _, state = self._states[channel.name]
        now_ms = int(self._clock.time() * 1000)
        self._hub.broadcast_transient(channel, state.encoder.heartbeat(state.position, now_ms))

    def _next_deadlines(self, channel: Channel) -> tuple[float | None, float | None]:
        stale_seconds = self._stale_seconds(channel)
        stale_at = None
        if stale_seconds and channel.stale_since_ms is None:
            stale_at = channel.active_at + stale_seconds
        heartbeat_at = None
        if self._config.heartbeat_seconds:
            last = max(channel.active_at, self._last_heartbeats[channel.name])
            heartbeat_at = last + self._config.heartbeat_seconds
        return stale_at, heartbeat_at

    def _stale_seconds(self, channel: Channel) -> float:
        stream, state = self._states[channel.name]
        # A view is as stale as its source, and a closed market is silent.
        return (
            0.0
            if state.is_derived or state.is_halted
            else self._config.stale_seconds.get(stream, 0.0)
        )

    def _schedule(self, channel: Channel) -> None:
        deadlines = [each for each in self._next_deadlines(channel) if each is not None]
        if deadlines:
            self._deadlines.set(channel.name, min(deadlines))
