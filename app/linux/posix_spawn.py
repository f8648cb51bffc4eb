"""Runs in every process of ours: start a program by posix_spawn(3), with all of its signals at their defaults."""

import ctypes
import os
from collections.abc import Iterable, Sequence

_libc = ctypes.CDLL(None)
# glibc's own, which its sigaction(3) refuses; musl has a third, 34. A shim starts with them at their defaults, and a
# fork inherits that.
RESERVED = (32, 33)
LIBRARY_SIGNALS = (*RESERVED, 34)
# spawn.h, the same in glibc and musl.
_SETSIGDEF = 0x04
_SETSIGMASK = 0x08
SETSID = 0x80
# sigset_t is 1,024 bits in words of that size; the other two types of spawn.h are smaller than `_Opaque`.
_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)
_SignalSet = ctypes.c_ulong * (1024 // _BITS)
_Opaque = ctypes.c_ulong * 256
# An array's type takes memory and time to be made, and does not stay unless it is held: this one is for most lists.
_ROOM = 128
_Strings = ctypes.c_char_p * _ROOM


def attributes(defaults: Iterable[int], blocked: Iterable[int] = (), flags: int = 0) -> ctypes.Array[ctypes.c_ulong]:
    """Return the attributes of a child for `posix_spawn`: signals at their defaults, signals blocked, flags.

    The defaults are why this is not `os.posix_spawn`: the child of posix_spawn(3) ignores the C library's own signals
    unless the set of defaults holds them (__spawni_child(), sysdeps/unix/sysv/linux/spawni.c), and sigaddset(3), by
    which Python fills that set, refuses them.
    """
    result = _Opaque()
    _libc.posix_spawnattr_init(result)
    _libc.posix_spawnattr_setsigdefault(result, _signal_set(defaults))
    _libc.posix_spawnattr_setsigmask(result, _signal_set(blocked))
    _libc.posix_spawnattr_setflags(result, _SETSIGDEF | _SETSIGMASK | flags)
    return result


def _signal_set(numbers: Iterable[int]) -> ctypes.Array[ctypes.c_ulong]:
    words = _SignalSet()
    for number in numbers:
        words[(number - 1) // _BITS] |= 1 << (number - 1) % _BITS
    return words


# Looked up at the import, not while a caller waits for a start.
_init, _destroy = _libc.posix_spawn_file_actions_init, _libc.posix_spawn_file_actions_destroy
_place, _spawn = _libc.posix_spawn_file_actions_adddup2, _libc.posix_spawn


def posix_spawn(
    arguments: Sequence[bytes],
    environment: Sequence[bytes],
    places: Iterable[tuple[int, int]],
    how: ctypes.Array[ctypes.c_ulong],
) -> int:
    """Start a program and return its pid; raises `OSError`.

    Each of `places` is a descriptor and the number that it gets in the child.
    """
    actions, pid = _Opaque(), ctypes.c_int()
    _init(actions)
    try:
        for source, target in places:
            _place(actions, source, target)
        argv, envp = _strings(arguments), _strings(environment)
        error = _spawn(ctypes.byref(pid), arguments[0], actions, how, argv, envp)
    finally:
        _destroy(actions)
    if error:
        raise OSError(error, os.strerror(error))
    return pid.value


def _strings(values: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    kind = _Strings if len(values) < _ROOM else ctypes.c_char_p * (len(values) + 1)
    return kind(*values)
