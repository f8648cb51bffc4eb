"""Runs in every process of ours: all that a start asks for, as one value from a request to exec."""

import msgspec

# The process that calls without a name mean.
DEFAULT_NAME = "default"
# Where programs look for the port that they are to listen on.
PORT_VARIABLE = "PORT"
# What the process's standard input is: at its end at once, or never, though nothing comes.
EMPTY, OPEN = STDINS = ("empty", "open")


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold all that a start asks for.

    `cwd` is the directory as its caller named it, empty for the service's own, until the start has made it absolute.
    The start also fills in `shell` and `account`, the user to run as (see `linux/account.py`), empty for the service's.
    `stdin` is one of `STDINS`, or what a later build knows beside these. `port` is the TCP port that the command is to
    listen on, 0 for none.
    """

    command: str
    cwd: str = ""
    env: dict[str, str] = {}
    shell: str = ""
    account: str = ""
    stdin: str = EMPTY
    port: int = 0

    def variables(self) -> dict[str, str]:
        """Return what the command gets in its environment: `env`, and the port where that names none."""
        return {PORT_VARIABLE: str(self.port), **self.env} if self.port else self.env


# What the operator's settings say, and no start asks for.
_NOT_ASKED_FOR = frozenset({"account"})


def differences(asked: Spec, live: Spec) -> list[str]:
    """Return in which fields two resolved specs differ: their names, and of `env` those of variables, as `env.PORT`.

    Never a value: what is told goes to callers and into logs, and a value may be a secret.
    """
    found = [name for name in Spec.__struct_fields__ if getattr(asked, name) != getattr(live, name)]
    variables = [f"env.{name}" for name in sorted(_unlike(asked.env, live.env))]
    return [name for name in found if name not in {"env", *_NOT_ASKED_FOR}] + variables


def _unlike(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name, _ in one.items() ^ other.items()}
