"""Runs in the master: tell a hang-up of the terminal, which is a stop, from a SIGHUP that asks for a reload."""

import atexit
import signal
from pathlib import Path
from types import FrameType

# Seconds between two checks; a hang-up's signal comes within milliseconds, so one two checks later is a reload.
LOOK_INTERVAL = 5.0


class Terminal:
    """Detect whether the process has just lost its controlling terminal.

    When a terminal is closed the kernel takes it from every process of its session, and signals the session's leader,
    normally a shell, that passes the signal on to its jobs (tty_signal_session_leader(), drivers/tty/tty_jobctrl.c). So
    a SIGHUP is a hang-up when there was a terminal a moment ago and is none now. A service that outlives its terminal
    because the shell was left by `exit` got no signal then: later ones ask for a reload. So do all where SIGHUP was
    ignored at the start (nohup(1)).
    """

    def __init__(self) -> None:
        self._there = _has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
        self._missed = False
        self.closed = False

    def watch(self) -> None:
        """Check regularly from now on whether the terminal is still there; call this in the main thread.

        By a timer, which no forked child inherits (setitimer(2)) and which needs no thread. It is stopped before the
        interpreter removes the handler at exit: SIGALRM would kill the process then.
        """
        if self._there:
            atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, LOOK_INTERVAL, LOOK_INTERVAL)

    def hung_up(self) -> bool:
        """Tell, at a SIGHUP, whether the terminal has just been closed; remembered in `closed`."""
        self.closed = self._there and not _has_terminal()
        return self.closed

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        if _has_terminal():
            return
        if self._missed:
            self._there = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._missed = True


def _has_terminal() -> bool:
    """Tell whether this process has a controlling terminal: field 7 of /proc/PID/stat (proc_pid_stat(5))."""
    return Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()[4] != "0"
