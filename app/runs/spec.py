"""Runs in every process of ours: all that a start asks for, as one value from a request to exec."""

import msgspec

# The process that calls without a name mean.
DEFAULT_NAME = "default"


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold all that a start asks for.

    `cwd` is the directory as its caller named it, empty for the service's own, until the start has made it absolute.
    The start also fills in `shell` and `account`, the user to run as (see `linux/account.py`), empty for the service's.
    """

    command: str
    cwd: str = ""
    env: dict[str, str] = {}
    shell: str = ""
    account: str = ""
