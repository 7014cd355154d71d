"""One node alone: there is nobody to hand a connection over to."""

from collections.abc import Callable, Collection

from server.core.recovery.connection_state import Luggage, Reclaim
from server.ports import Give


class MemoryHandover:
    """Fills the `Handover` port."""

    node = ""

    async def start(self, give: Give) -> None:
        pass

    async def stop(self, leave: Callable[[], Collection[tuple[Reclaim, Luggage]]]) -> None:
        pass

    async def fetch(self, reclaim: Reclaim) -> Luggage | None:
        return None

    def forget(self, reclaim: Reclaim) -> None:
        pass
