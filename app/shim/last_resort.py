"""Runs in the master and the worker: end a tree whose shim died, where no process can be created for another shim."""

import contextlib
import os
import socket

from app.linux import sockets
from app.protocol import messages
from app.protocol.messages import Killed, Operation, Reply, Request, Result, Takeover
from app.runs.record import State, decode_record, encode_record
from app.shim.after_spawn import adopt
from app.shim.keeper import Keeper


def end_tree(takeover: Takeover, listener: socket.socket, operation: Operation) -> tuple[State, Result]:
    """Keep the run in this thread, as a shim does, until the operation is done; return state and result.

    `listener` is served meanwhile and closed. Raises `OSError` where there are too few descriptors even for that.
    """
    record = decode_record(encode_record(takeover.record))
    record.shim = None  # there is no shim whose exit a caller could wait for
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        stack.enter_context(theirs)
        tree = adopt(takeover)
        stack.callback(tree.close)
        with contextlib.ExitStack() as on_failure:
            pipe = os.dup(takeover.pipe) if takeover.pipe is not None else None
            if pipe is not None:
                on_failure.callback(os.close, pipe)
            keeper = Keeper(record, takeover.process, tree, pipe, listener)
            on_failure.pop_all()
        stack.callback(keeper.close)
        keeper.resume()
        ours.send(messages.encode(Request(0, operation)))
        keeper.add_connection(theirs)
        ours.setblocking(False)
        for state in keeper.states():
            if (result := _result_on(ours)) is not None:
                return state, result
        return state, Killed(found=False)  # the run ended before the request was read


def _result_on(connection: socket.socket) -> Result | None:
    """Return the result if it has been sent; the keeper's other messages are discarded."""
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, fds = sockets.receive(connection)
            for fd in fds:
                os.close(fd)
            if not packet:
                return None
            message = messages.decode_from_shim(packet)
            if isinstance(message, Reply):
                return message.result
    return None
