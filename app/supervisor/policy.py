"""Runs in the master and the worker: the operator's settings for how runs are started and kept."""

from dataclasses import dataclass, field
from pathlib import Path

from app.runs.shells import default_shell


@dataclass(frozen=True, slots=True)
class Policy:
    """Hold the operator's settings for runs.

    `run_as` names another user to run commands as, for a service of root's. `working_dir` is the directory of
    commands that name none, and the base of relative ones; None is this process's. `log_max_bytes` caps each
    run's log, `log_keep` the runs of a name whose files are kept, and `log_total_bytes` all their logs together; 0 is
    no limit. `restart_timeout` is the grace, in seconds, of a restart whose caller gives none. `max_processes` are the
    names that may live at the same time.
    """

    shell: str = field(default_factory=default_shell)
    run_as: str | None = None
    working_dir: Path | None = None
    group_read: bool = False
    log_max_bytes: int = 0
    log_keep: int = 0
    log_total_bytes: int = 0
    restart_timeout: float = 10.0
    max_processes: int = 64
