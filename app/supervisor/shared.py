"""Runs in the master and the worker: what all named processes of one log directory have in common."""

from collections.abc import Callable
from pathlib import Path

from app.reading.reader import LogManager
from app.supervisor.history import History
from app.supervisor.meter import Meter
from app.supervisor.policy import Policy
from app.supervisor.retention import Retention


class Shared:
    """Hold the logs, the past runs, their retention and the policy of one log directory."""

    def __init__(self, log_dir: str | Path, policy: Policy, forget: Callable[[str, str], bool]) -> None:
        """Take `forget` for the retention."""
        self.logs = LogManager(log_dir, group_read=policy.group_read)
        self.history = History(self.logs.log_dir)
        self.retention = Retention(self.logs.log_dir, self.history, policy, forget)
        self.policy = policy
        self.meter = Meter()
