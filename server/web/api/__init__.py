"""The HTTP API under `/api/v1`."""

from server.web.api.application import add_api, all_endpoints
from server.web.api.handling import ApiConfig, ApiHandler
from server.web.api.limits import RequestLimits

__all__ = ["ApiConfig", "ApiHandler", "RequestLimits", "add_api", "all_endpoints"]
