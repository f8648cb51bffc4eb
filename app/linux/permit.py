"""Runs in the worker and all that it forks for a start: the start's permit, which is taken once, by one of them.

It is an eventfd(2) with the value 1. A read takes the value, and fails with EAGAIN from then on. So the kernel decides
whether a shim executes the command or a worker gives the start up, however late either of them comes.

The shim first waits for a second eventfd, the announcement, which the worker writes once record and pointer are on
disk. No process reads it, so it stays readable, also for a shim that comes late.
"""

import os
import select
import socket


def new_permit() -> int:
    """Return the descriptor of a permit that can be taken. Raises `OSError`."""
    return os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def new_announcement() -> int:
    """Return the descriptor of an announcement that is yet to be made. Raises `OSError`."""
    return os.eventfd(0, os.EFD_CLOEXEC)


def announce(announcement: int) -> None:
    """Let every process go on that waits for this, now or later."""
    os.eventfd_write(announcement, 1)


def was_announced(announcement: int, connection: socket.socket) -> bool:
    """Wait until this is announced; False where the other end of the connection, the worker's, is closed before."""
    poller = select.poll()
    poller.register(announcement, select.POLLIN)
    poller.register(connection, 0)  # POLLHUP is reported all the same (poll(2))
    return (announcement, select.POLLIN) in poller.poll()


def take(permit: int) -> bool:
    """Take the permit; False where it was taken before."""
    try:
        os.eventfd_read(permit)
    except BlockingIOError:
        return False
    return True


def is_taken(permit: int) -> bool:
    """Tell whether the permit was taken, and leave it."""
    poller = select.poll()
    poller.register(permit, select.POLLIN)
    return not poller.poll(0)
