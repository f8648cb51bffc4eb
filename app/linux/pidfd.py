"""Runs in every process of ours: open a pidfd of exactly one process, and signal it without hitting another."""

import os
import signal

from app.linux.proc import Identity, find_member


def open_pidfd(identity: Identity) -> int | None:
    """Open a pidfd of exactly this process; None when it was reaped, or no pidfd can be had. A zombie still has one.

    The start time is compared after the open: from then on the descriptor, unlike the pid, can't refer to another
    process (pidfd_open(2)).
    """
    try:
        return find_pidfd(identity)
    except OSError:
        return None


def find_pidfd(identity: Identity) -> int | None:
    """Open a pidfd like `open_pidfd`, but raise `OSError` where the process may exist and none can be had."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    member = None
    try:
        member = find_member(identity.pid)
    finally:
        same = member is not None and member.start_ticks == identity.start_ticks
        if not same:
            os.close(pidfd)
    return pidfd if same else None


def send(identity: Identity, *signals: int) -> bool:
    """Send signals, in order, to exactly this process; False when it is gone or may not be signalled."""
    try:
        return _send(identity, *signals)
    except PermissionError:
        return False


def may_signal(identity: Identity) -> bool:
    """Tell whether the kernel lets us signal this process (kill(2)); True for one that is gone."""
    try:
        _send(identity, 0)
    except PermissionError:
        return False
    return True


def _send(identity: Identity, *signals: int) -> bool:
    pidfd = open_pidfd(identity)
    if pidfd is None:
        return False
    try:
        for number in signals:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
