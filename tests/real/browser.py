"""A real Chromium without a window, asked over the pipe of its own debugging protocol: no driver to install."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.kit.requiring import require

OPTIONS = (
    "--headless",
    "--no-sandbox",  # its sandbox refuses to work for root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# --remote-debugging-pipe: it reads commands from descriptor 3 and writes answers to 4, each ended by a NUL.
PLACE_PIPES = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
ABOVE_THE_PIPES = 10


class Page:
    """A page in the browser: `errors` are its errors and what its policy refused."""

    def __init__(self, commands: Any, answers: Any) -> None:
        self._commands = commands
        self._answers = answers
        self._session: dict[str, str] = {}
        self._sent = 0
        self.errors: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str, width: int, height: int) -> None:
        """Open an address on a screen of this size, a phone's where it is narrow."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Run the body of an asynchronous function in the page and return its value."""
        answer = self._call(
            "Runtime.evaluate", expression=f"(async () => {{{script}}})()", awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters, **self._session}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._read()).get("id") != self._sent:
            self._note(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        match event:
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": text}}}:
                self.errors.append(text)
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.errors.append(str(details))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile and offer a page of it."""
    program = shutil.which("chromium")
    require(program, "chromium (Debian: apt install chromium)")
    with ExitStack() as cleanup:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        commands = cleanup.enter_context(os.fdopen(ours_out, "wb"))
        answers = cleanup.enter_context(os.fdopen(ours_in, "rb"))
        handed = [fcntl.fcntl(theirs, fcntl.F_DUPFD, ABOVE_THE_PIPES) for theirs in (theirs_in, theirs_out)]
        command = [str(program), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            [sys.executable, "-c", PLACE_PIPES, *map(str, handed), *command],
            pass_fds=handed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for theirs in (theirs_in, theirs_out, *handed):
            os.close(theirs)
        cleanup.callback(process.wait, 20)
        cleanup.callback(process.terminate)
        yield Page(commands, answers)
