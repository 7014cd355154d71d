"""OpenTelemetry: spans from publishing to the fan-out, only with the extra `otel`."""

from server.tracing.opening import Tracing, open_tracing

__all__ = ["Tracing", "open_tracing"]
