"""Become a daemon by two forks and setsid, print its pid, and stay. Each argument changes that:

`keep` keeps the output open as descriptor 9; `private` hides its descriptors from those who may not trace everything,
as ssh-agent does (PR_SET_DUMPABLE, prctl(2)); `late` closes it only on SIGUSR1; `stubborn` ignores SIGTERM; `child`
has a child that holds the output, in the daemon's process group, and prints that one's pid, too.
"""

import ctypes
import os
import signal
import sys
import time

arguments = set(sys.argv[1:])
written, write_end = os.pipe()
if os.fork():
    os.close(write_end)
    os.read(written, 1)  # the daemon is one
    sys.exit()
os.setsid()
if os.fork():
    os._exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
if "private" in arguments:
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
if "stubborn" in arguments:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdout.write(f"{os.getpid()}\n")
if "child" in arguments:
    child = os.fork()
    if child == 0:
        os.close(write_end)
        time.sleep(1000)
    sys.stdout.write(f"{child}\n")
sys.stdout.flush()
if "keep" in arguments:
    os.dup2(1, 9)
if "late" in arguments:
    os.write(write_end, b"x")
    signal.sigwait([signal.SIGUSR1])
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
if "late" not in arguments:
    os.write(write_end, b"x")
os.close(write_end)
time.sleep(1000)
