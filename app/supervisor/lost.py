"""Runs in the master and the worker: find live runs whose files were removed, by their sockets."""

import logging
import re
import time
from collections.abc import Collection
from pathlib import Path

from app.linux import sockets
from app.runs.names import control_prefix
from app.runs.record import read_record
from app.supervisor.handshake import await_handshake, connect

logger = logging.getLogger(__name__)
# A line of /proc/net/unix (unix_seq_show(), net/unix/af_unix.c) with a name of ours; 00010000, __SO_ACCEPTCON, means
# that it listens: the connections made to it appear under the same name. The kernel prints any byte of an abstract name
# but NUL as it is, a newline too, so any user can put lines of any form there: the handshake must refuse those.
_LISTENER = rb"(?m)^\S+: [0-9A-F]{8} [0-9A-F]{8} 00010000 [0-9A-F]{4} [0-9A-F]{2} +[0-9]+ @(%b[0-9a-f]{32})$"


def find_records(log_dir: Path, timeout: float, known: Collection[str] = ()) -> list[str]:
    """Return the paths of the records of all runs of this directory whose shims live, the newest run first.

    `known` are the names of sockets of runs that need not be found.

    Before its handshake a shim rewrites its record, wherever it keeps that: only a record that is then in this very
    directory makes the run ours. The same path may mean another directory to a shim in another mount namespace. All the
    shims together have `timeout` seconds for it.
    """
    deadline = time.monotonic() + timeout
    names = _listening(control_prefix(log_dir)).difference(known)
    # Another program's socket that never accepts takes its own share of the time and no more.
    shares = range(len(names), 0, -1)
    alive = {name for name, left in zip(names, shares, strict=True) if _answers(name, deadline, left)}
    if not alive:
        return []
    records = [(path, read_record(str(path))) for path in log_dir.glob("*.json")]
    ours = {record.control: (record.started_ns, str(path)) for path, record in records if record is not None}
    for name in alive - ours.keys():
        logger.warning("The shim that listens on @%s is left alone: it has no record in %s.", name, log_dir)
    return [path for _started_ns, path in sorted((ours[name] for name in alive & ours.keys()), reverse=True)]


def _answers(name: str, deadline: float, left: int) -> bool:
    """Tell whether a shim of ours answers the handshake, in its share of the time that `left` names have."""
    timeout = max(0.001, (deadline - time.monotonic()) / left)
    try:
        connection = connect(name, timeout)
    except OSError:
        return False
    with connection:
        try:
            return await_handshake(connection, timeout)
        except TimeoutError:
            logger.warning(
                "The shim %d, which listens on @%s, does not answer: its run may live, and is skipped. If the shim "
                "does not recover, end its descendants (pstree -p shows them), then the shim.",
                sockets.peer_pid(connection),
                name,
            )
            return False


def _listening(prefix: str) -> set[str]:
    """Return the abstract names with this prefix that seem to be listened on (proc_pid_net(5))."""
    try:
        table = Path("/proc/self/net/unix").read_bytes()
    except OSError:
        return set()
    return {name.decode() for name in re.findall(_LISTENER % prefix.encode(), table)}
