"""Calls the webhooks of the operator: sends events, and asks who may do what."""

from server.hooks.authorizer import AuthorizerConfig, WebhookAuthorizer
from server.hooks.endpoint import Endpoint, EndpointError
from server.hooks.sender import HookSender, SenderConfig
from server.hooks.signature import signature

__all__ = [
    "AuthorizerConfig",
    "Endpoint",
    "EndpointError",
    "HookSender",
    "SenderConfig",
    "WebhookAuthorizer",
    "signature",
]
