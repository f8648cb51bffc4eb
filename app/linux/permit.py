"""Runs in the worker, the understudy and the shim: a start's permit, which is taken once, by one of them.

It is an eventfd(2) with the value 1. A read takes the value, and fails with EAGAIN from then on. So the kernel decides
whether a shim executes the command or a worker gives the start up, however late either of them comes.
"""

import os
import select


def new_permit() -> int:
    """Return the descriptor of a permit that can be taken. Raises `OSError`."""
    return os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


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
