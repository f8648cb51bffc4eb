"""Runs in the master and the worker: their supervisors, one for each log directory."""

import threading
from pathlib import Path

from app.config import Settings
from app.exceptions import ConflictError
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from app.supervisor.supervisor import Supervisor


def manage(log_dir: str | Path = "logs", policy: Policy | None = None) -> ProcessManager:
    """Return a manager for the processes of this log directory, by default one that starts runs as the service does."""
    return ProcessManager(log_dir, policy or Policy())


# The supervisor of a service under gunicorn: the master claims with it, its worker serves with it.
supervisor = Supervisor()
_of_this_process: list[Supervisor] = []
_serving = threading.Lock()


def serve(settings: Settings) -> Supervisor:
    """Return the supervisor that serves a log directory by these settings: one for each directory of a process.

    Where this process serves the directory already, the settings given last hold. A worker of gunicorn's serves the
    directory that its master has claimed and no other: `ConflictError`.
    """
    with _serving:
        _of_this_process[:] = [one for one in _of_this_process if one.claimed]
        found = next((one for one in (supervisor, *_of_this_process) if one.holds(settings.log_dir)), None)
        if found is None:
            if supervisor.claimed:
                raise ConflictError(
                    f"This service uses one log directory, the one that its settings name, and not "
                    f"{settings.log_dir.absolute()}: set LLM_SHELL_LOG_DIR, or start another service for that."
                )
            found = Supervisor()
            _of_this_process.append(found)
        found.init_app(settings)
        return found
