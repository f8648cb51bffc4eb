"""Runs in the worker: what ends a tree where the machine gives no process for a shim.

It does so by the shim's code, which is not this package's to import: `app/service.py` puts the two together.
"""

import socket
from typing import Protocol

from app.protocol.messages import Operation, Result, Takeover
from app.runs.record import State


class EndTree(Protocol):
    """End a tree whose shim died, in this thread; return the run's state then and the answer to the request.

    `listener` is served meanwhile and closed. Raises `OSError` where there are too few descriptors even for that.
    """

    def __call__(
        self, takeover: Takeover, listener: socket.socket, pipe: int | None, pidfd: int | None, operation: Operation
    ) -> tuple[State, Result]:
        """Do it."""
