"""Runs in every process of ours: all that a start asks for, as one value from a request to exec."""

import msgspec

# The process that calls without a name mean.
DEFAULT_NAME = "default"
# What the process's standard input is: at its end at once, or never, though nothing comes.
EMPTY, OPEN = STDINS = ("empty", "open")


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold all that a start asks for.

    `cwd` is the directory as its caller named it, empty for the service's own, until the start has made it absolute.
    The start also fills in `shell` and `account`, the user to run as (see `linux/account.py`), empty for the service's.
    `stdin` is one of `STDINS`, or what a later build knows beside these.
    """

    command: str
    cwd: str = ""
    env: dict[str, str] = {}
    shell: str = ""
    account: str = ""
    stdin: str = EMPTY
