"""What a caller is told whose call holds a name that it does not take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.wording import nearest

# What callers, models above all, say instead: a name to what it may stand for, of which a call takes one at most.
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
    """Say that `path` takes no parameter or field of this name, which one may be meant, and which there are."""
    meant = _meant(name, taken)
    question = f"; did you mean {meant}?" if meant else "."
    return f"There is no such {kind}{question} {path} takes {', '.join(taken)}."


def _meant(name: str, taken: Sequence[str]) -> str | None:
    stands_for = MEANT.get(name.lower().replace("-", "_"), ())
    return next((candidate for candidate in stands_for if candidate in taken), None) or nearest(name, taken)
