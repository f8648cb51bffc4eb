"""What a process prints is in the log, all of it, in order, as it was written."""

import sys
from contextlib import suppress
from pathlib import Path

import pytest

from app.supervisor.manager import ProcessManager
from tests.kit.actors import shim_of
from tests.kit.machine import log_records
from tests.kit.output import content, printed, read_logs
from tests.kit.processes import memory_kib
from tests.kit.waiting import ended, wait_until

STAND_INS = "\x7f~`^|$\ufdd0".encode()


def python(code: str) -> str:
    """Return a command that runs this Python code."""
    return f"exec {sys.executable} -c '{code}'"


def test_both_streams_share_one_order(pm: ProcessManager) -> None:
    """Standard output and standard error arrive in the order in which they were written."""
    pm.start("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done")
    ended(pm.get_status)
    assert content(pm).split("\n") == [f"{name} {i}" for i in range(1, 6) for name in ("out", "err")]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (r"printf 'a\377b\n'", r"a\xffb"),
        (r"printf '\303\251\n'", "é"),
        (r"printf 'no newline'", "no newline"),
        (r"printf 'one\n\nthree\n'", "one\n\nthree"),
        (r"printf '10%%\r20%%\r\033[1mdone\033[0m\n'", "10%\r20%\r\x1b[1mdone\x1b[0m"),
        (r"printf 'crlf\r\n'", "crlf\r"),
        (r"printf 'nul\000byte\n'", "nul\0byte"),
        (r"printf '\303'", r"\xc3"),
        (r"""printf '%s\n' 'quote" back\slash \u2028 and it'""", r"""quote" back\slash \u2028 and it"""),
        ("true", ""),
    ],
)
def test_text_is_shown_as_written(pm: ProcessManager, command: str, shown: str) -> None:
    r"""Text comes back exactly as it was written; bytes that are not UTF-8 come as \xNN."""
    pm.start(command)
    ended(pm.get_status)
    assert content(pm) == shown


def test_the_last_line_is_there_when_the_exit_is_told(pm: ProcessManager) -> None:
    """Whoever learns of the exit can read the last line, however much came before it."""
    for _ in range(5):
        pm.start("seq 1 20000; echo last")
        ended(pm.get_status)
        lines = content(pm).split("\n")
        assert lines[-1] == "last"
        assert lines[:-1] == [str(number) for number in range(1, 20001)]


def test_the_last_line_is_there_although_a_child_holds_the_pipe(pm: ProcessManager) -> None:
    """The exit is told with everything printed before it, also while a leftover keeps the output open."""
    pm.start("sleep 100 & printf 'unfinished'; exit 3")
    status = ended(pm.get_status)
    assert (status["exit_code"], status["output_open"]) == (3, True)
    assert content(pm) == "unfinished"
    pm.kill("SIGKILL")
    assert content(pm) == "unfinished"


def test_a_line_that_trickles_in_is_shown_meanwhile(pm: ProcessManager) -> None:
    """A line whose characters come one by one, and that never ends, is shown while more of it comes."""
    pm.start("while :; do printf .; sleep 0.02; done")
    wait_until(lambda: content(pm).startswith("..."))
    assert pm.get_status()["status"] == "running"


def test_unfinished_line_is_shown_while_the_process_waits(pm: ProcessManager) -> None:
    """A prompt without a newline can be read while the process runs, and is one line in the end."""
    pm.start("printf 'Name? '; sleep 0.6; printf 'Bob'; sleep 0.6; echo '!'")
    printed(pm, "Name? ")
    assert pm.get_status()["status"] == "running"
    ended(pm.get_status)
    page = read_logs(pm.logs, pm.get_status()["log_file"])
    assert page == {**page, "content": "Name? Bob!", "total_lines": 1, "lines_returned": 1}


def test_pieces_of_one_line_are_numbered(pm: ProcessManager, tmp_path: Path) -> None:
    """Pieces of a line share its number, count from 1, and all but the last are marked as partial."""
    go = "until [ -e {} ]; do sleep 0.01; done"
    first, second = tmp_path / "first", tmp_path / "second"
    pm.start(f"printf a; {go.format(first)}; printf b; {go.format(second)}; echo c; echo next")
    printed(pm, "a")
    first.touch()
    printed(pm, "ab")
    second.touch()
    ended(pm.get_status)
    records = log_records(pm.get_status())
    told = [(r["seq"], r.get("part"), r.get("partial"), r["line"]) for r in records]
    assert told == [(1, 1, True, "a"), (1, 2, True, "b"), (1, 3, None, "c"), (2, None, None, "next")]


def test_a_line_of_any_length_takes_bounded_memory(pm: ProcessManager) -> None:
    """A line of 64 MiB comes through whole while the shim stays small."""
    pm.start(python('import sys; [sys.stdout.write("x" * 1048576) for _ in range(64)]; print("end")') + "; :")
    shim = shim_of(pm.get_status())
    ended_with_peak = 0
    while pm.get_status()["status"] == "running":
        with suppress(ProcessLookupError):
            ended_with_peak = max(ended_with_peak, memory_kib(shim, "VmHWM"))
    page = read_logs(pm.logs, pm.get_status()["log_file"])
    assert page["total_lines"] == page["lines_returned"] == 1
    assert len(page["content"]) == 64 * 1048576 + 3
    assert page["content"].endswith("xend")
    assert 0 < ended_with_peak < 40 * 1024


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"", 1_000_000),
        (b"y", 4_000_000),
        (b"\1" * 100, 20_000_000),
        ("\U0001f680".encode() * 25, 20_000_000),
        (b"0" * 60_000 + STAND_INS, 30_000_000),
        (STAND_INS, 5_000_000),
        (b"\xff" * 200, 4_000_000),
    ],
    ids=["empty", "short", "all escaped", "emoji", "long with all stand-ins", "all stand-ins", "binary"],
)
def test_a_flood_takes_bounded_memory(pm: ProcessManager, tmp_path: Path, line: bytes, size: int) -> None:
    """Whatever lines a flood is made of, the shim takes no more than 24 MB."""
    (tmp_path / "line").write_bytes(line)
    pm.start(f'yes "$(cat {tmp_path}/line)" | head -c {size}; echo; echo the end; exec sleep 100')
    wait_until(lambda: read_logs(pm.logs, pm.get_status()["log_file"], lines=1)["content"] == "the end", timeout=60)
    assert memory_kib(shim_of(pm.get_status()), "VmHWM") < 24 * 1024


def test_output_after_closing_stdout(pm: ProcessManager) -> None:
    """A process that closes its output runs on, and the output is told to be closed."""
    pm.start("echo before; exec >/dev/null 2>&1; exec sleep 100")
    wait_until(lambda: not pm.get_status()["output_open"])
    assert pm.get_status()["status"] == "running"
    assert content(pm) == "before"
    assert pm.kill()["status"] == "killed"


def test_capture_goes_on_after_the_exit(pm: ProcessManager) -> None:
    """What a leftover prints after the process has ended is in the log too."""
    pm.start("(sleep 0.5; echo late) & exit 0")
    status = ended(pm.get_status)
    assert status["output_open"]
    printed(pm, "late")
    wait_until(lambda: not pm.get_status()["output_open"])
    assert pm.get_status()["leftover_pids"] == []
