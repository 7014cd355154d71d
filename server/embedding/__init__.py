"""Parts of the application that embeds the server: namespaces, guards and authentication."""

from server.embedding.authentication import ApplicationVerifier, Authenticate
from server.embedding.extensions import Extensions
from server.embedding.lifecycle import (
    ClientEvent,
    ExpiredNotice,
    Handlers,
    Lifecycle,
    MemberEvent,
    OccupiedSession,
    OccupiedTopic,
    UserEvent,
)
from server.embedding.namespaces import ApplicationNamespace, Namespace, on, stay_check

__all__ = [
    "ApplicationNamespace",
    "ApplicationVerifier",
    "Authenticate",
    "ClientEvent",
    "ExpiredNotice",
    "Extensions",
    "Handlers",
    "Lifecycle",
    "MemberEvent",
    "Namespace",
    "OccupiedSession",
    "OccupiedTopic",
    "UserEvent",
    "on",
    "stay_check",
]
