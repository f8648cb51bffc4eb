"""Runs in the worker: how the operator wants runs to be started and kept."""

from dataclasses import dataclass, field
from pathlib import Path

from app.runs.shells import default_shell


@dataclass(frozen=True, slots=True)
class Policy:
    """How runs are started and kept.

    `run_as` names another user to run commands as, for a service of root's. `working_dir` is the directory of
    commands that name none, and what relative ones are relative to; None is this process's. `log_max_bytes` caps each
    run's log and `log_keep` the runs whose files are kept; 0 is no limit. `restart_timeout` is the grace, in seconds,
    of a restart whose caller gives none.
    """

    shell: str = field(default_factory=default_shell)
    run_as: str | None = None
    working_dir: Path | None = None
    group_read: bool = False
    log_max_bytes: int = 0
    log_keep: int = 0
    restart_timeout: float = 10.0
