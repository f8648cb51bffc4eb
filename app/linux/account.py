"""Runs in every process of ours: the user that commands run as, where that is not the service's own."""

import os
import pwd
from ctypes import CDLL
from typing import NamedTuple

PR_SET_NO_NEW_PRIVS = 38
# keyctl(2), which the C library has no function for: its numbers in asm/unistd.h.
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1


class Account(NamedTuple):
    """Hold the user id, group id and supplementary groups of a user."""

    uid: int
    gid: int
    groups: list[int]

    def pack(self) -> str:
        """Return it as one field of a record or a request."""
        return " ".join(str(number) for number in (self.uid, self.gid, *self.groups))

    @classmethod
    def unpack(cls, field: bytes) -> "Account | None":
        """Parse what `pack` returned; None when it is empty."""
        if not field:
            return None
        uid, gid, *groups = map(int, field.split())
        return cls(uid, gid, groups)

    def become(self, libc: CDLL) -> None:
        """Change this process to this user, irreversibly; raises `OSError`.

        setresuid(2) away from root clears every capability (capabilities(7)); no_new_privs makes setuid programs, sudo
        among them, run without their privilege (prctl(2)). A new session keyring replaces the service's, whose keys
        any process that inherits it can use (session-keyring(7)). A sandbox that forbids keyctl(2), as Docker's does,
        forbids it to the command as well.
        """
        if (number := _KEYCTL.get(os.uname().machine)) is not None:
            libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


def execute(arguments: list[str]) -> None:
    """Become the user whose packed account is the first argument, then execute the others; raises `OSError`."""
    field, *command = arguments
    account = Account.unpack(field.encode())
    if account is not None:
        account.become(CDLL(None))
        os.execv(command[0], command)  # noqa: S606  the shell is the product


def look_up(name: str) -> tuple[Account, dict[bytes, bytes]]:
    """Return a user's account and the variables that a login sets; raises `KeyError` for an unknown name."""
    user = pwd.getpwnam(name)
    variables = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell}
    account = Account(user.pw_uid, user.pw_gid, os.getgrouplist(name, user.pw_gid))
    return account, {name.encode(): os.fsencode(value) for name, value in variables.items()}
