"""Run Floorcast as a peer, as `floorcast serve` does, without connection and rate limits."""

import argparse
import asyncio

import uvloop

from benchmarks.client_pool import SECRET
from benchmarks.lines import reply
from benchmarks.peers.control import serve_commands
from client_sdk.contract import Scope
from server.access import mint
from server.app import SERVER, create_app
from server.server import SystemClock
from server.serving import open_listener, run_app
from server.settings import load_settings

_UNLIMITED = (
    "connections",
    "connections_per_ip",
    "connections_per_user",
    "connects_per_second",
    "connects_per_second_per_ip",
    "events_per_second",
)


async def main(broker: str, *, concurrent: bool) -> None:
    flags: dict[str, object] = {f"limits.{name}": 0 for name in _UNLIMITED}
    settings = load_settings(
        flags={**flags, "auth.secret": SECRET, "server.port": 0, "broker.url": broker}
    )
    app = create_app(settings)
    async with run_app(app, settings, open_listener(settings)) as address:
        token = mint(
            SECRET,
            subject="load",
            scopes=[Scope.MARKET_READ, Scope.MARKET_PUBLISH, Scope.SESSION_JOIN],
            clock=SystemClock(),
            ttl_seconds=3600,
        )
        reply(port=int(address.url.rpartition(":")[2]), token=token)
        publishing = app[SERVER].market.publishing
        tasks: set[asyncio.Task[object]] = set()

        async def publish(symbol: str, data: dict[str, str]) -> None:
            # With Redis each publish awaits a reply and lets the loop run; with memory none does.
            await publishing.publish(f"PRICE:{symbol}", data)

        async def start_publishing(symbol: str, data: dict[str, str]) -> None:
            task = asyncio.create_task(publishing.publish(f"PRICE:{symbol}", data))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await serve_commands(start_publishing if concurrent else publish)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", default="memory://")
    parser.add_argument("--concurrent", action="store_true", help="do not await a publish")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.broker, concurrent=arguments.concurrent))
