"""The error codes that a client can meet, each with one meaning everywhere."""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why something was refused; the part before the dot names the area."""

    AUTH_MISSING = "auth.missing"
    AUTH_INVALID = "auth.invalid"
    AUTH_EXPIRED = "auth.expired"
    AUTH_FORBIDDEN = "auth.forbidden"
    LIMIT_CONNECTIONS = "limit.connections"
    LIMIT_RATE = "limit.rate"
    LIMIT_TOPICS = "limit.topics"
    LIMIT_PAYLOAD = "limit.payload"
    REQUEST_INVALID = "request.invalid"
    REQUEST_UNKNOWN_EVENT = "request.unknown_event"
    TOPIC_UNKNOWN = "topic.unknown"
    SESSION_NOT_JOINED = "session.not_joined"
    SESSION_CLOSED = "session.closed"
    PUBLISH_CONFLICT = "publish.conflict"
    SERVER_DRAINING = "server.draining"
    SERVER_OVERLOADED = "server.overloaded"
    SERVER_INTERNAL = "server.internal"
