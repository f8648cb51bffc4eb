"""What is to be run, and how runs are kept."""

from dataclasses import dataclass, field
from pathlib import Path

from app.runs.shells import default_shell


@dataclass(frozen=True, slots=True)
class Policy:
    """How runs are started and kept.

    `run_as` names another user to run commands as, for a service of root's. `working_dir` is where commands begin that
    don't say where, and what relative directories are relative to; None is this process's. `log_max_bytes` caps each
    run's log and `log_keep` the runs whose files are kept; 0 is no limit.
    """

    shell: str = field(default_factory=default_shell)
    run_as: str | None = None
    working_dir: Path | None = None
    group_read: bool = False
    log_max_bytes: int = 0
    log_keep: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """Hold a start that was checked: its absolute `cwd`, the caller's `env`, the command's whole `environment`.

    `given_cwd` is the directory as its caller named it. `beside` names those whom the run before left and who could not
    be ended.
    """

    command: str
    shell: str
    cwd: str
    env: dict[str, str]
    environment: dict[bytes, bytes]
    log_file: str | None
    given_cwd: str | None = None
    beside: str = ""
