"""Runs in the shim: its program after the spawn, or from a takeover on: signals, streams, and the keeper."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import msgspec

from app.linux.libc import keep_buffers
from app.linux.proc import Identity, read_member
from app.protocol import messages
from app.protocol.messages import Crashed, Takeover
from app.protocol.startup import CONNECTION_FD, LISTENER_FD, PIPE_FD
from app.runs.record import decode_record
from app.shim.adopted import AdoptedTree, allow_many_descriptors
from app.shim.keeper import Keeper
from app.shim.owned import OwnedTree

# A terminal's hang-up, its Ctrl-C or a stop of the whole control group end the process, never its shim, which has to
# report how the process ended.
IGNORED_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def keep(record_json: bytes, process: tuple[int, int]) -> None:
    """Keep a run from its spawn until nothing of it is left."""
    with _reporting_a_crash() as connection:
        record = decode_record(record_json)
        record.shim = _own_identity()
        record.process = Identity(*process)
        keeper = Keeper(record, record.process, OwnedTree(), PIPE_FD, socket.socket(fileno=LISTENER_FD))
        keeper.add_connection(connection)
        keeper.run()


def take_over(request: bytes) -> None:
    """Keep a run whose shim died until nothing of it is left."""
    with _reporting_a_crash() as connection:
        allow_many_descriptors()
        takeover = msgspec.json.decode(request, type=Takeover)
        record = takeover.record
        record.shim = _own_identity()
        listener = socket.socket(fileno=LISTENER_FD)
        keeper = Keeper(record, takeover.process, adopt(takeover), takeover.pipe, listener)
        keeper.resume()
        keeper.add_connection(connection)
        keeper.run()


def adopt(takeover: Takeover) -> AdoptedTree:
    """Return the tree of a shim that died."""
    known, parents, not_ours = takeover.record.members, takeover.parents, takeover.not_ours
    return AdoptedTree(takeover.process, takeover.pidfd, known=known, parents=parents, not_ours=not_ours)


@contextlib.contextmanager
def _reporting_a_crash() -> Iterator[socket.socket]:
    """Detach from the service's signals and streams; yield the connection on which a crash is reported."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _release_standard_streams()
    keep_buffers()
    connection = socket.socket(fileno=CONNECTION_FD)
    try:
        yield connection
    except Exception:
        import traceback  # noqa: PLC0415  it takes memory, and most shims never need it

        with contextlib.suppress(OSError):
            connection.send(messages.encode(Crashed(traceback.format_exc())))
        raise


def _release_standard_streams() -> None:
    """Redirect 0 to 2 to /dev/null: the request may hold secrets, and readers wait for the service's streams to end."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _own_identity() -> Identity:
    member = read_member(os.getpid())
    assert member is not None  # noqa: S101  for the type checker: this process is alive
    return member.identity
