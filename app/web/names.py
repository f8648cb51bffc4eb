"""Runs in the worker: word the refusal of an unknown field or parameter, with the name that may be meant."""

from collections.abc import Mapping, Sequence

from app.wording import nearest

# Each name with those that callers, mostly models, use instead of it. Of two that one may mean, the first that the call
# takes is meant.
MEANT: Mapping[str, tuple[str, ...]] = {
    "run_id": ("id", "run"),
    "command": ("cmd", "run", "script"),
    "cwd": ("dir", "directory", "path", "workdir", "working_dir", "working_directory"),
    "before": ("after", "cursor", "next", "page", "since"),
    "env": ("environment", "variables", "vars"),
    "limit": ("count", "lines", "n", "page_size", "size"),
    "lines": ("count", "last", "limit", "n", "tail"),
    "replace": ("force", "overwrite"),
    "seconds": ("since",),
    "timeout": ("grace", "wait"),
    "type": ("sig", "signal", "signal_type"),
}


def no_such(kind: str, name: str, path: str, taken: Sequence[str]) -> str:
    """Return the message that `path` takes no such parameter or field, a likely name, and all that it takes."""
    meant = _meant(name, taken)
    question = f"; did you mean {meant}?" if meant else "."
    return f"There is no such {kind}{question} {path} takes {', '.join(taken)}."


def _meant(name: str, taken: Sequence[str]) -> str | None:
    said = name.lower().replace("-", "_")
    likely = (meant for meant, others in MEANT.items() if said in others and meant in taken)
    return next(likely, None) or nearest(name, taken)
