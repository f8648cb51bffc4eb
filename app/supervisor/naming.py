"""Runs in the master and the worker: name processes in answers and in the log: a few, short, and safely escaped."""

from collections.abc import Callable, Sequence

from app.linux.proc import command_line, user_of
from app.supervisor.handshake import name_of

NAMED_AT_MOST = 5
SHOWN_CHARACTERS = 80


def name_some(pids: Sequence[int]) -> list[dict[str, object]]:
    """Return pid, name and command line of the first five; a process that has gone meanwhile has neither."""
    return [
        {"pid": pid, "name": short_name(pid), "command_line": shown(command_line(pid))} for pid in pids[:NAMED_AT_MOST]
    ]


def count_rest(pids: Sequence[int]) -> int:
    """Return how many `name_some` leaves out."""
    return max(0, len(pids) - NAMED_AT_MOST)


def listed(pids: Sequence[int]) -> str:
    """Return pids and names as part of a sentence: `7 (sleep), 8 (node) and 38 more`; empty for none."""
    return _joined(pids, lambda pid: f"{pid} ({name})" if (name := short_name(pid)) else str(pid))


def called(pids: Sequence[int]) -> str:
    """Return names and pids as the beginning of a sentence: `sleep (pid 7), node (pid 8) and 38 more`."""
    return _joined(pids, lambda pid: f"{name} (pid {pid})" if (name := short_name(pid)) else f"pid {pid}")


def name_all(pids: Sequence[int]) -> str:
    """Return pids, users and command lines as part of a sentence, for processes that another user has to end."""
    return _joined(pids, lambda pid: f"{pid} (user {user_of(pid)}: {shown(command_line(pid))})")


def _joined(pids: Sequence[int], name: Callable[[int], str]) -> str:
    rest = count_rest(pids)
    return ", ".join(map(name, pids[:NAMED_AT_MOST])) + (f" and {rest} more" if rest else "")


def shown(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    r"""Return at most `limit` characters, the last one `…` where more follow.

    A character that is not printable becomes an escape such as `\n` or `\u202e`: a process chooses its own name and
    arguments, and a newline, a terminal's sequence or a change of direction could pass for the service's own text.
    """
    parts: list[str] = []
    length = 0
    for character in text:
        part = character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        if length + len(part) > limit:
            return _with_ellipsis(parts, length, limit)
        parts.append(part)
        length += len(part)
    return "".join(parts)


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters as they are, the last one `…` where more follow."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _with_ellipsis(parts: list[str], length: int, limit: int) -> str:
    while length >= limit:
        length -= len(parts.pop())
    return "".join(parts) + "…"


def short_name(pid: int) -> str:
    """Return the short name of a process (proc_pid_comm(5)), which it may change at any time; empty when it is gone."""
    return shown(name_of(pid).decode(errors="backslashreplace"))
