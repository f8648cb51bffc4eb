"""Programs that listen on TCP ports, as commands of a run."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

# One that any user may execute: the tests' own may lie in the home of who runs them.
PYTHON = shutil.which("python3", path=os.defpath) or sys.executable
# Listens at each "address:port" of its arguments, says so, and stays, deaf to SIGTERM where the first one is "deaf".
_SERVER = """
import signal, socket, sys, time
places = sys.argv[1:]
if places[0] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    places = places[1:]
held = []
for place in places:
    address, _, port = place.rpartition(":")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    held.append(socket.create_server((address, int(port)), family=family))
print("listening", flush=True)
time.sleep(1000)
"""
# Listens, and forks as many as its second argument says, which all have the socket.
_FORKING = """
import os, socket, sys, time
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        time.sleep(1000)
print("listening", os.getpid(), flush=True)
time.sleep(1000)
"""


def listening_at(*places: str) -> str:
    """Return a command that listens at these places, each an address and a port; see `_SERVER`."""
    return shlex.join([PYTHON, "-c", _SERVER, *places])


def forking(port: int, forks: int) -> str:
    """Return a command that listens on a port of 127.0.0.1 in several processes, and prints the pid of the first."""
    return shlex.join([PYTHON, "-c", _FORKING, str(port), str(forks)])
