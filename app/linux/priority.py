"""Runs in the shim: run before all ordinary processes for the few microseconds that decide whether output is lost."""

import contextlib
import os

_FIRST = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK


class Precedence:
    """Hold the real-time priority that this process waits with, where it may have one (CAP_SYS_NICE, sched(7)).

    Without it a process that is woken by a write waits until the writer has used up its time slice
    (wake_up_interruptible_sync_poll(), fs/pipe.c, lets it), which is long enough to fill a pipe.
    """

    def __init__(self) -> None:
        self.held = False
        self._permitted = os.sched_getscheduler(0) == os.SCHED_OTHER

    def take(self) -> None:
        """Take precedence, before a wait: what it is woken for must be short, and end with `leave`."""
        if self._permitted and not self.held:
            try:
                os.sched_setscheduler(0, _FIRST, os.sched_param(1))
                self.held = True
            except OSError:
                self._permitted = False

    def leave(self) -> None:
        """Be an ordinary process again, with the same nice value as before."""
        if self.held:
            self.held = False
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
