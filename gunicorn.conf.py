"""gunicorn's configuration: one worker with threads, and the hooks that tie the service's life to the process's."""

import sys
from pathlib import Path

# The `gunicorn` command puts its own folder on the path, and the working directory only after it has read this file.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from app.server import hooks
from app.server.listening import bind_address

settings = hooks.settings_for_gunicorn()

bind = bind_address(settings)
# A Unix socket is for its owner and group, 0660: whoever can connect may give orders. gunicorn uses this for the socket
# alone, not for what the commands write.
umask = 0o117
# What a proxy says is judged in one place, app/web/proxy.py; by default gunicorn believes any local program's headers.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
# The supervisor's state is a singleton; threads of one worker share it.
workers = 1
# gunicorn's own gthread, made to stand more; `-k gthread` means the same here.
worker_class = "app.server.worker.ShellWorker"
threads = settings.threads
# Silent ones cost a descriptor and no thread; the worker takes no more than its limit of descriptors allows.
worker_connections = 4096
# Would end the one worker for nothing.
max_requests = 0
# It would lie under the home directory, the same for every service of a user; nothing here needs it.
control_socket_disable = True
# The worker's heartbeat is a file: in memory it beats on a full disk too.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a directory, gunicorn makes the name
proc_name = "llm-shell"

on_starting = hooks.on_starting
when_ready = hooks.when_ready
post_fork = hooks.post_fork
on_reload = hooks.on_reload
nworkers_changed = hooks.nworkers_changed
pre_exec = hooks.pre_exec
on_exit = hooks.on_exit
