"""Runs in the worker: word the refusal of an unknown field or parameter, with the name that may be meant."""

from collections.abc import Mapping, Sequence

from app.wording import nearest

# Names that callers, mostly models, use instead, with those that they may mean; a call takes one of these at most.
MEANT: Mapping[str, tuple[str, ...]] = {
    "cmd": ("command",),
    "count": ("lines",),
    "dir": ("cwd",),
    "directory": ("cwd",),
    "environment": ("env",),
    "force": ("replace",),
    "grace": ("timeout",),
    "id": ("run_id",),
    "last": ("lines",),
    "limit": ("lines",),
    "n": ("lines",),
    "overwrite": ("replace",),
    "path": ("cwd",),
    "run": ("run_id", "command"),
    "script": ("command",),
    "sig": ("type",),
    "signal": ("type",),
    "signal_type": ("type",),
    "since": ("seconds",),
    "tail": ("lines",),
    "variables": ("env",),
    "vars": ("env",),
    "wait": ("timeout",),
    "workdir": ("cwd",),
    "working_dir": ("cwd",),
    "working_directory": ("cwd",),
}


def no_such(kind: str, name: str, path: str, taken: Sequence[str]) -> str:
    """Return the message that `path` takes no such parameter or field, a likely name, and all that it takes."""
    meant = _meant(name, taken)
    question = f"; did you mean {meant}?" if meant else "."
    return f"There is no such {kind}{question} {path} takes {', '.join(taken)}."


def _meant(name: str, taken: Sequence[str]) -> str | None:
    stands_for = MEANT.get(name.lower().replace("-", "_"), ())
    return next((candidate for candidate in stands_for if candidate in taken), None) or nearest(name, taken)
