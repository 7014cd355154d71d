"""What `floorcast tail` draws: one panel for each kind of topic."""

from client_sdk.tools.screens.ladder import LadderPanel
from client_sdk.tools.screens.log import LogPanel
from client_sdk.tools.screens.prices import PricesPanel
from client_sdk.tools.screens.room import RoomPanel
from client_sdk.tools.screens.tape import TapePanel

__all__ = ["LadderPanel", "LogPanel", "PricesPanel", "RoomPanel", "TapePanel"]
