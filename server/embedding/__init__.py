"""Parts of the application that embeds the server: its rule, guards and authentication."""

from server.embedding.authentication import ApplicationVerifier, Authenticate
from server.embedding.extensions import Extensions

__all__ = ["ApplicationVerifier", "Authenticate", "Extensions"]
