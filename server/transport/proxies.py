"""Finds a client's address behind trusted proxies."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_MAX_HOPS = 32


class TrustedProxies:
    """The networks whose `X-Forwarded-*` headers are believed; all others are ignored."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(network, strict=False) for network in networks
        )

    def trusts(self, address: str) -> bool:
        """Whether the address belongs to a trusted proxy."""
        if not self._networks:
            return False
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client_address(self, peer: str, forwarded_for: str | None) -> str:
        """The right-most untrusted hop of `X-Forwarded-For`, or the last valid hop.

        A client can forge entries only in front of those that proxies append: the list is read
        from its end up to the first untrusted address.
        """
        if forwarded_for is None or not self.trusts(peer):
            return peer
        hops = forwarded_for.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
        client = peer
        for hop in reversed(hops):
            parsed = _parse(_without_port(hop.strip()))
            if parsed is None:
                return client
            client = str(parsed)
            if not self.trusts(client):
                return client
        return client


def outermost(values: Iterable[str]) -> str | None:
    """The first value of a header's list, None if it is empty.

    Each proxy appends what it was asked for itself, so the first value is what the browser asked
    for. No page can set these headers.
    """
    return ",".join(values).partition(",")[0].strip() or None


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    if hop.count(":") == 1:
        return hop.partition(":")[0]
    return hop
