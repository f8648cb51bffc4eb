"""Runs in the zygote: wait for starts with every import made, and fork an understudy for each."""

import contextlib
import errno
import gc
import os
import select
import signal
import socket
from typing import NoReturn

from app import protocol
from app.linux import sockets
from app.linux.libc import PR_SET_NAME, PR_SET_PDEATHSIG, keep_buffers, prctl
from app.protocol import CONNECTION_FD, ZYGOTE_NAME, Forked, StartFds
from app.shim import understudy
from app.shim.rehearsal import rehearse, use_up_free_blocks

# A terminal's hang-up, its Ctrl-C or a stop of the whole control group end the process, never its shim, which has to
# report how the process ended.
IGNORED_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def serve(parent: int) -> NoReturn:
    """Fork an understudy for each start that is received on CONNECTION_FD, until the service closes that.

    `parent` is the pid of the service whose end kills this process even while it is stopped, 0 for none.
    """
    connection = socket.socket(fileno=CONNECTION_FD)
    connection.set_inheritable(False)
    with contextlib.suppress(OSError):  # forks are slower then
        rehearse()
    gc.collect()  # before the numbers of the descriptors that this closes are others' again
    _detach()
    if parent:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
    use_up_free_blocks()
    # What there is now is never collected, so that no collection in a fork writes to its pages.
    gc.freeze()
    while True:
        packet, fds = sockets.receive(connection, len(StartFds._fields))
        if not packet:
            os._exit(0)
        answer = _fork(connection, fds, packet[0])
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(OSError):  # the service has gone: its end of the connection is read next
            connection.send(protocol.encode(answer))


def _detach() -> None:
    """Close what was inherited by accident, and leave the service's signals and streams.

    Readers of the service's streams wait until no process holds them. What is set here is inherited by the forks, for
    which to set it again would take memory and time.
    """
    for name in os.listdir("/proc/self/fd"):  # the limit may be lower than one that was opened before it was set
        if int(name) > CONNECTION_FD:
            with contextlib.suppress(OSError):  # that of the list
                os.close(int(name))
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The kernel reaps understudies that have ended (sigaction(2)). A handler could come between its look at the flag
    # that a signal has set and the wait for a packet, and would leave one until the next start.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    keep_buffers()
    prctl(PR_SET_NAME, ZYGOTE_NAME)


def _fork(connection: socket.socket, fds: list[int], number: int) -> Forked:
    """Fork the understudy of a start with this number of descriptors; return what went wrong, if anything did."""
    if len(fds) != number:  # those without room in our table were dropped (recvmsg(2), unix(7))
        return Forked(errno.EMFILE)
    if _has_gone(connection):  # so no caller waits for this start any more, and the run has no other keeper
        return Forked(errno.EPIPE)
    try:
        pid = os.fork()
    except OSError as error:
        return Forked(error.errno or errno.EAGAIN)
    if pid == 0:
        connection.close()
        understudy.begin(StartFds(*fds))
    return Forked()


def _has_gone(connection: socket.socket) -> bool:
    poller = select.poll()
    poller.register(connection, 0)  # POLLHUP is reported all the same (poll(2))
    return bool(poller.poll(0))
