"""The handover of a single node: there is no other node."""

from collections.abc import Callable, Collection

from server.core.recovery.connection_state import ConnectionState, ResumeRequest
from server.ports import ExportConnection


class MemoryHandover:
    """Implements `Handover` as a no-op."""

    node = ""

    async def start(self, export: ExportConnection) -> None:
        pass

    async def stop(
        self, export_all: Callable[[], Collection[tuple[ResumeRequest, ConnectionState]]]
    ) -> None:
        pass

    async def fetch(self, request: ResumeRequest) -> ConnectionState | None:
        return None

    def forget(self, request: ResumeRequest) -> None:
        pass
