"""A fake worker without a server: records what it receives, and behaves as its argument says."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from server.workers.control import Control, MessageKind

COUNTER, GAUGE = "floorcast_notices_posted_total", "floorcast_presence_users"
# Of a worker that has handed over, in its last report.
LAST_COUNT = 5


async def main(diary_path: str, behavior: str, control_fd: int) -> None:
    def log(event: str) -> None:
        with open(diary_path, "a") as file:
            file.write(f"{event} {spec.number} {os.getpid()}\n")

    def report(count: int) -> None:
        values = {COUNTER: [[[], count]], GAUGE: [[[], 3]]}
        control.send(MessageKind.REPORT, values=values, obstacles=[f"I am {spec.number}"])

    def on_term() -> None:
        log("term")
        if behavior != "stubborn":
            sys.exit(0)

    control = await Control.open(socket.socket(fileno=control_fd))
    spec = await control.receive_spec()
    log("start")
    if behavior == "failing" or Path(f"{diary_path}.unfit").exists():
        control.send(MessageKind.FAILED, message="the reason why", code=2)
        return
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_term)
    control.send(MessageKind.READY, answers=behavior == "answering")
    if behavior == "dying":
        return
    while (message := await control.receive()) is not None:
        log(message[0].value)
        if Path(f"{diary_path}.{os.getpid()}.hung").exists():
            await asyncio.sleep(60)
        if message[0] is MessageKind.PING:
            control.send(MessageKind.PONG)
        elif message[0] is MessageKind.READ:
            report(1)
    log("over")
    control.send(MessageKind.HANDED_OVER)
    if behavior == "answering":
        report(LAST_COUNT)
    while Path(f"{diary_path}.{os.getpid()}.drains").exists():
        await asyncio.sleep(0.01)
    if behavior == "stubborn":
        await asyncio.sleep(60)
    control.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
