"""A worker that serves nobody: it writes down what it is told, and does what it is called for."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from server.workers.control import Control, Word


async def main(diary: str, habit: str, control_fd: int) -> None:
    def note(what: str) -> None:
        with open(diary, "a") as file:
            file.write(f"{what} {order.number} {os.getpid()}\n")

    def on_term() -> None:
        note("term")
        if habit != "stubborn":
            sys.exit(0)

    control = await Control.on(socket.socket(fileno=control_fd))
    order = await control.ordered()
    note("start")
    if habit == "failing" or Path(f"{diary}.unfit").exists():
        control.say(Word.FAILED, message="the reason why", code=2)
        return
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_term)
    control.say(Word.READY)
    if habit == "dying":
        return
    while (heard := await control.heard()) is not None:
        note(heard[0].value)
    note("over")
    control.say(Word.HANDED_OVER)
    if habit == "stubborn":
        await asyncio.sleep(60)
    control.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
