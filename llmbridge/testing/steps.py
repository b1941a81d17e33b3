"""The vocabulary of what a test server does on a socket: write, sleep, close, reset, hold.

Every answer, well behaved or not, is a list of these steps before its first byte is sent.
"""

from __future__ import annotations

import enum
from typing import Union

__all__ = ["CLOSE", "HOLD", "RESET", "Action", "Step"]


class Action(enum.Enum):
    """What can happen to a connection besides bytes and time; each of them ends it."""

    CLOSE = "close"
    """End the sending side in order (FIN), after everything written has left."""

    RESET = "reset"
    """Tear the connection down (RST); what the client has not read yet may be lost."""

    HOLD = "hold"
    """Write nothing more and keep the socket until the client leaves."""


CLOSE = Action.CLOSE
RESET = Action.RESET
HOLD = Action.HOLD

Step = Union[bytes, float, Action]
