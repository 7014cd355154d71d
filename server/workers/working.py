"""Runs a worker: serves on an inherited socket and follows the supervisor's messages."""

import asyncio
import logging
import os
import socket

from server.access import ConfigurationError
from server.app import SERVER, create_app
from server.measuring import report
from server.server import Server
from server.serving import Endpoint, Shutdown, freeze_heap, run_app
from server.settings import load_settings
from server.tasks import cancel_and_wait
from server.workers.control import Control, MessageKind, WorkerSpec

logger = logging.getLogger(__name__)

# The time for clients that were accepted before the hand-over to join.
_JOIN_GRACE_SECONDS = 1.0
# How often a worker that drains reports; the supervisor can ask for nothing any more.
_REPORT_SECONDS = 1.0


async def work(control_fd: int, listener_fd: int) -> int:
    """Serve until stopped; return the exit code."""
    control = await Control.open(socket.socket(fileno=control_fd))
    try:
        await _serve(await control.receive_spec(), control, socket.socket(fileno=listener_fd))
    except ConfigurationError as error:
        control.send(MessageKind.FAILED, message=str(error), code=2)
        return 2
    finally:
        control.close()
    return 0


async def _serve(spec: WorkerSpec, control: Control, listener: socket.socket) -> None:
    settings = load_settings(flags=spec.flags, environ=os.environ, file=spec.config)
    app = create_app(settings, console_token=spec.console_token, run_feed=False)
    stopping = Shutdown.on_signals()
    async with run_app(app, settings, listener) as endpoint:
        freeze_heap()
        control.send(MessageKind.READY, answers=True)
        following = app[SERVER].tasks.start(
            follow_supervisor(control, app[SERVER], endpoint, stopping), "floorcast-supervisor"
        )
        # Nobody could replace a worker that no longer follows its supervisor.
        following.add_done_callback(lambda _: stopping.request_drain())
        await stopping.wait_and_drain(app[SERVER], settings.server.drain_seconds)
        await cancel_and_wait(following)


async def follow_supervisor(
    control: Control,
    server: Server,
    endpoint: Endpoint,
    stopping: Shutdown,
    *,
    join_grace_seconds: float = _JOIN_GRACE_SECONDS,
) -> None:
    """Handle the supervisor's messages until its end closes, then hand over and drain.

    The end closes if a successor is ready, or if the supervisor has died: in both cases new
    clients belong to another process at the same address. From then on this reports by itself, at
    last when it is cancelled, if the supervisor has ever asked for a report.
    """
    wants_reports = False
    while (message := await control.receive()) is not None:
        kind, _ = message
        if kind is MessageKind.FEED:
            server.start_feed()
        elif kind is MessageKind.PING:
            control.send(MessageKind.PONG)
        elif kind is MessageKind.READ:
            wants_reports = True
            _send_report(control, server)
    endpoint.close()
    await server.stop_feed()
    control.send(MessageKind.HANDED_OVER)
    await asyncio.sleep(join_grace_seconds)
    stopping.request_drain()
    if wants_reports:
        try:
            while True:
                _send_report(control, server)
                await asyncio.sleep(_REPORT_SECONDS)
        finally:
            _send_report(control, server)


def _send_report(control: Control, server: Server) -> None:
    try:
        control.send(MessageKind.REPORT, **report(server).body())
    except Exception:
        # A worker serves its clients also if its metrics cannot be read.
        logger.exception("cannot report the metrics")
