"""How programs of others behave under the service: what they leave, and how they take SIGTERM."""

import signal
import subprocess
import sys
import time

from bench.programs.cases import CASES
from bench.programs.signals import Recorder, Signal, recording
from bench.programs.tools import Tools
from bench.programs.trial import Case, Left, Outcome, run
from bench.table import machine

HEADER = "| program | command | leaves | next start | SIGTERM | exit code | remark |\n|---|---|---|---|---|---|---|"


def measure(only: str, minutes: float) -> None:
    """Run the cases whose tool holds `only`, and print a row for each as it comes; none is begun after `minutes`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was begun is ended first
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}\n\n{HEADER}", flush=True)
    deadline = time.monotonic() + 60 * minutes
    tools, absent = Tools(), []
    with recording() as recorder:
        for case in (case for case in CASES if only in case.tool):
            try:
                print(_row(case, tools, recorder, deadline), flush=True)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                absent.append(f"{case.tool}: {error}")
    if absent:
        print("\n".join(["", "Not measured:", *absent]))


def _row(case: Case, tools: Tools, recorder: Recorder, deadline: float) -> str:
    if time.monotonic() > deadline:
        raise RuntimeError("no time was left")
    for package in case.packages:
        if not tools.has(package):
            raise RuntimeError(f"{package} can't be installed")
    seen = run(case, tools, recorder)
    command = (case.shown or case.command).replace("{port}", "PORT").replace("{folder}/", "")
    cells = [
        f"{case.tool} {tools.version(case.packages[0])}",
        f"`{command}`".replace("|", "\\|"),
        _leaves(case, seen),
        _next_start(seen),
        _taken(seen),
        _code(seen),
        case.remark,
    ]
    return f"| {' | '.join(cells)} |"


def _leaves(case: Case, seen: Outcome) -> str:
    """Say what of which kind is left, by what this bench saw and, where that differs, by what the service told."""
    if not case.ends:
        return "runs on"
    if not seen.left:
        return f"nothing; for a moment {_counted(seen.passing)}" if seen.passing else "nothing"
    told = {one["pid"] for one in seen.told["daemons"]}
    kinds: dict[str, list[str]] = {}
    for one in seen.left:
        kind = _kind(one)
        if (one.pid in told) != (kind == "daemon"):
            kind += f", told as {'a daemon' if one.pid in told else 'a leftover'}"
        kinds.setdefault(kind, []).append(one.name)
    return "; ".join(f"{kind}: {_counted(names)}" for kind, names in kinds.items())


def _kind(one: Left) -> str:
    if one.holds_output:
        return "leftover, holds the output" + (" in a session of its own" if one.own_session else "")
    return "daemon" if one.own_session else "leftover, in the session"


def _next_start(seen: Outcome) -> str:
    if seen.next_start is None:
        return ""
    if seen.survived_the_service:
        return f"{seen.next_start}; **outlived the service: {_counted(seen.survived_the_service)}**"
    return f"{seen.next_start}{'' if seen.outlived else ', and they were gone'}"


def _taken(seen: Outcome) -> str:
    """Say who got which signals, from whom where it was not the service, and how long it took until all had ended."""
    if "detail" in seen.answer:
        return ""
    heard: dict[int, list[Signal]] = {}
    for one in seen.signals:
        heard.setdefault(one.target, []).append(one)
    each = [f"{seen.names[pid]}: {', '.join(map(_said, signals))}" for pid, signals in heard.items()]
    return f"{_counted(each)}; {seen.seconds:.1f} s"


def _said(one: Signal) -> str:
    return one.signal if one.ours else f"{one.signal} by {one.sender}"


def _code(seen: Outcome) -> str:
    if "detail" in seen.answer:
        return f"{seen.told['exit_code']}"
    escalated = ", escalated" if seen.answer["escalated"] else ""
    survivors = ", **survivors**" if seen.answer["survivors"] else ""
    return f"{seen.answer['exit_code']}, {seen.answer['status']}{escalated}{survivors}"


def _counted(names: list[str]) -> str:
    """Return the different ones, each with its number where there are several."""
    return "; ".join(
        f"{count} of {name}" if (count := names.count(name)) > 1 else name for name in dict.fromkeys(names)
    )
