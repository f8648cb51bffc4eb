"""Runs in the zygote: do all that a shim does once it is forked, before the first fork, and to no effect."""

import os
import signal
import socket

from app import protocol
from app.linux.descriptors import limit_of_commands
from app.linux.permit import announce, new_announcement, new_permit
from app.protocol import Start, StartFds
from app.runs.record import RunRecord
from app.runs.spec import Spec
from app.shim import main
from app.shim.record_copy import RecordCopy

# Eight calls make CPython 3.11 specialise a function, and some more each instruction of it (PEP 659).
TIMES = 20
# No file can be made or executed below this one.
_NOWHERE = "/dev/null"
# CPython's small objects, of up to 512 bytes in steps of 16, lie in pools of one size each, which begin with a header
# (Objects/obmalloc.c). `bytes(0)` takes 33.
_SIZES = range(48, 513, 16)
_POOL, _HEADER = 16 * 1024, 48
# More blocks of one size are not used up, should pools be others than these.
_MOST = 4096
_used_up: list[bytes] = []


def rehearse() -> None:
    """Start a program that isn't there, and keep a run that has no process, again and again. Raises `OSError`.

    A fork shares the zygote's memory until it writes to it; each page's first write costs a fault, a copy and 4 KiB.
    CPython writes where code runs for the first times: it specialises the code, and fills its cache of attributes. What
    is done here was written before the fork. Leaves descriptors open, and objects to be collected.
    """
    try:
        for _ in range(TIMES):
            _rehearse()
    finally:
        signal.set_wakeup_fd(-1)


def _rehearse() -> None:
    _ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")  # the kernel chooses a name (unix(7))
    pipe, write_end = os.pipe2(os.O_CLOEXEC)
    os.write(write_end, b"\n")
    os.dup2(write_end, 1)  # where the output's write end is looked for
    request = os.memfd_create("llm-shell-rehearsal")
    record = RunRecord(
        run_id="",
        spec=Spec("", env={}),
        created_at="",
        started_ns=0,
        boottime_ns=0,
        boot_id="",
        control="",
        log_file=f"{_NOWHERE}/log",
    )
    program = f"{_NOWHERE}/sh".encode()
    os.write(request, protocol.encode_start(Start(record, {"cwd": b"/"}, [program], [b"A=B"], limit_of_commands())))
    ready = new_announcement()
    announce(ready)
    fds = StartFds(os.dup(theirs.fileno()), request, listener.detach(), pipe, write_end, ready, new_permit())
    copy = RecordCopy()
    main.execute(fds, copy, os.getppid())
    main.keep(fds, copy, theirs, record, os.getpid())


def use_up_free_blocks() -> None:
    """Leave no free memory between the objects that there are, so that those of a fork come to lie together.

    A new object gets the block of one that was freed, wherever that is; a fork's few would copy a page for each.
    """
    for size in _SIZES:
        before = 0
        for _ in range(_MOST):
            block = bytes(size - 33)
            if before % _POOL == _HEADER and id(block) == before + size:  # the second one of a pool that was empty
                _used_up.pop()  # so that the pool is empty again, for any size
                break
            before = id(block)
            _used_up.append(block)
