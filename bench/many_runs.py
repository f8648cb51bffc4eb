"""A process of ours with several runs: `python -m bench.many_runs FOLDER COMMAND`.

A service has one run, but a process may serve several directories. Each line of the standard input starts one more run,
in a directory of its own, and is answered by its process's pid; at the end of the input all are ended.
"""

import sys
from pathlib import Path

from app.service import manage

managers = []
for _line in sys.stdin:
    managers.append(manage(Path(sys.argv[1]) / f"runs-{len(managers)}"))
    print(managers[-1].start(sys.argv[2])["process_pid"], flush=True)
for manager in managers:
    manager.kill("SIGKILL")
