"""Watches how long topics are silent: a heartbeat for a quiet one, STALE for a dead feed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from client_sdk.contract import Stream
from server.core.deadlines import Deadlines
from server.delivery.channel import Channel
from server.delivery.hub import Fanout
from server.delivery.topic_state import TopicView
from server.ports import Clock


@dataclass(frozen=True, slots=True)
class FreshnessConfig:
    """After how long a stream is stale, and how often a quiet topic says so; 0 is never."""

    heartbeat_seconds: float = 15.0
    stale_seconds: Mapping[Stream, float] = field(default_factory=dict)


class Freshness:
    """One deadline a topic: what comes meanwhile only notes its moment."""

    def __init__(self, config: FreshnessConfig, fanout: Fanout, clock: Clock) -> None:
        self._config = config
        self._fanout = fanout
        self._clock = clock
        self._looks: Deadlines[str] = Deadlines()
        self._beats: dict[str, float] = {}
        self._views: dict[str, tuple[Stream, TopicView]] = {}
        fanout.on_revival = self._watch

    def __len__(self) -> int:
        return len(self._looks)

    def __contains__(self, name: object) -> bool:
        return name in self._views

    def open(self, channel: Channel, stream: Stream, view: TopicView) -> None:
        """A topic is followed from now on; its last message may have come long ago."""
        self._views[channel.name] = (stream, view)
        ts_ms = view.ts_ms
        if ts_ms is not None:
            silent = max(0.0, self._clock.time() - ts_ms / 1000)
            channel.active_at = self._clock.monotonic() - silent
            stale_after = self._stale_after(channel)
            if 0 < stale_after <= silent:
                channel.stale_since_ms = ts_ms
        self._beats[channel.name] = self._clock.monotonic()
        self._watch(channel)

    def close(self, name: str) -> None:
        """Nobody listens to it here any more."""
        self._looks.cancel(name)
        self._beats.pop(name, None)
        self._views.pop(name, None)

    def tick(self) -> None:
        """Say what the silence of the topics means by now."""
        now = self._clock.monotonic()
        for name in self._looks.due(now):
            channel = self._fanout.channel(name)
            if channel is None:
                continue
            stale_at, beat_at = self._moments(channel)
            if stale_at is not None and now >= stale_at:
                silent_ms = int((now - channel.active_at) * 1000)
                since_ms = int(self._clock.time() * 1000) - silent_ms
                self._fanout.set_stale(channel, since_ms)
            # Its last listener may break as it is told, and take the topic along.
            if beat_at is not None and now >= beat_at and name in self._views:
                self._beats[name] = now
                self.beat(channel)
            if self._fanout.channel(name) is channel:
                self._watch(channel)
            else:
                self.close(name)

    def set_broker(self, up: bool) -> None:
        """Without a broker every topic is stale, however loud its feed is."""
        now, now_ms = self._clock.monotonic(), int(self._clock.time() * 1000)
        for name in tuple(self._views):
            channel = self._fanout.channel(name)
            if channel is None:
                continue
            stale_after = self._stale_after(channel)
            silent = 0 < stale_after <= now - channel.active_at
            if not up and channel.stale_since_ms is None:
                self._fanout.set_stale(channel, now_ms)
            elif up and channel.stale_since_ms is not None and not silent:
                self._fanout.set_stale(channel, None)

    def beat(self, channel: Channel) -> None:
        """Repeat the head of a topic to all who have it; the others get it with the rest."""
        _, view = self._views[channel.name]
        now_ms = int(self._clock.time() * 1000)
        self._fanout.say(channel, view.encoder.heartbeat(view.position, now_ms))

    def _moments(self, channel: Channel) -> tuple[float | None, float | None]:
        stale_after = self._stale_after(channel)
        stale_at = None
        if stale_after and channel.stale_since_ms is None:
            stale_at = channel.active_at + stale_after
        beat_at = None
        if self._config.heartbeat_seconds:
            last = max(channel.active_at, self._beats[channel.name])
            beat_at = last + self._config.heartbeat_seconds
        return stale_at, beat_at

    def _stale_after(self, channel: Channel) -> float:
        stream, _ = self._views[channel.name]
        return self._config.stale_seconds.get(stream, 0.0)

    def _watch(self, channel: Channel) -> None:
        moments = [each for each in self._moments(channel) if each is not None]
        if moments:
            self._looks.set(channel.name, min(moments))
