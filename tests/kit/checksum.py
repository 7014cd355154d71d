"""Compute the checksum of a book as the documentation prescribes it to clients."""

import zlib
from collections.abc import Mapping
from decimal import Decimal


def checksum(bids: Mapping[str, str], asks: Mapping[str, str]) -> int:
    """Implement the rule in docs/protocol.md, independently of the server."""
    best_bids = sorted(bids.items(), key=lambda level: -Decimal(level[0]))[:10]
    best_asks = sorted(asks.items(), key=lambda level: Decimal(level[0]))[:10]
    words = []
    for rank in range(10):
        for side in (best_bids, best_asks):
            if rank < len(side):
                words += [side[rank][0], side[rank][1]]
    return zlib.crc32(":".join(words).encode("ascii"))
