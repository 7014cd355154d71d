"""What is wanted on all nodes, as far as they have answered."""

from server.services.cluster.cluster import ClusterQueries
from server.services.cluster.questions import FindDemand


class ClusterDemand:
    """Asks the nodes; one that does not answer still wants what it wanted last."""

    def __init__(self, cluster: ClusterQueries) -> None:
        self._cluster = cluster
        # By node: the version of its answer, and the names.
        self._known: dict[str, tuple[int, frozenset[str]]] = {}

    async def names(self) -> frozenset[str]:
        """The topics and patterns that somebody is subscribed to on any node."""
        versions = {node: version for node, (version, _) in self._known.items()}
        found = await self._cluster.find_demand(FindDemand(versions))
        known = {node: self._known[node] for node in found.incomplete if node in self._known}
        for each in found.value:
            if each.names is not None:
                known[each.node] = (each.version, frozenset(each.names))
            elif each.node in self._known:
                known[each.node] = self._known[each.node]
        self._known = known
        return frozenset().union(*(names for _, names in known.values()))
