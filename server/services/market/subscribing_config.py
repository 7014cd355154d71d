"""Limits of subscriptions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SubscribingConfig:
    """Limits of a connection's subscriptions, and of the backlog kept for each topic."""

    max_topics: int = 1_000
    max_reply_bytes: int = 128 * 1024
    backlog_messages: int = 1000
    backlog_bytes: int = 1024 * 1024
    backlog_age_ms: int = 300_000
