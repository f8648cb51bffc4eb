"""Runs in the master, at the start and at each reload: gunicorn's configuration, one worker with threads, and hooks."""

import sys
from pathlib import Path

# The `gunicorn` command puts its own folder on the path, and the working directory only after it has read this file.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from app.server import hooks
from app.server.listening import bind_address

settings = hooks.settings_for_gunicorn()

bind = bind_address(settings)
# Mode 0660 for a Unix socket, since connecting is enough to run commands. gunicorn applies this umask to the socket
# alone, not to the files that commands write.
umask = 0o117
# app/web/proxy.py alone decides about a proxy's headers; by default gunicorn trusts those of any local program.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
# The supervisor is a singleton that the threads of one worker share.
workers = 1
# A subclass of gunicorn's gthread; `-k gthread` means the same here.
worker_class = "app.server.worker.ShellWorker"
threads = settings.threads
# A silent one costs a descriptor and no thread; the worker lowers this to its limit of descriptors.
worker_connections = 4096
# Any other number would only end the one worker.
max_requests = 0
# It would lie under the home directory, the same for every service of a user; nothing here needs it.
control_socket_disable = True
# The worker's heartbeat is a file: in memory it works on a full disk too.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a directory, gunicorn makes the name
proc_name = "llm-shell"

on_starting = hooks.on_starting
when_ready = hooks.when_ready
pre_fork = hooks.pre_fork
post_fork = hooks.post_fork
on_reload = hooks.on_reload
nworkers_changed = hooks.nworkers_changed
pre_exec = hooks.pre_exec
on_exit = hooks.on_exit
