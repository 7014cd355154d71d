"""Keeps the state of a view on this node: a topic with the positions of its source."""

from server.core.log.history import DerivedHistory, History
from server.core.market.topic_state import TopicState


class ViewState(TopicState):
    """The state of one view; the entries are derived on this node."""

    is_derived = True

    __slots__ = ()

    @staticmethod
    def _new_history(max_messages: int, max_bytes: int, max_age_ms: int | None) -> History:
        return DerivedHistory(max_messages=max_messages, max_bytes=max_bytes, max_age_ms=max_age_ms)

    def _count_since(self, seq: int) -> int:
        assert self._history is not None
        entries = self._history.since(seq)
        # If they are gone, those of the source are counted.
        return super()._count_since(seq) if entries is None else len(entries)
