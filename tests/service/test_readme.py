"""What the README shows is what happens: its first session is typed in and its agent is run, on a real service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tests.kit.network import free_port
from tests.kit.places import ROOT
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_ID = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_\d+)?")
PIDS = {"process_pid", "leftover_pids"}
NUMBERS = re.compile(r"\d+")
LEFT_OUT = ",…"
# What a reader sees before going on: the command has got so far.
PRINTED = {"http.server": "Serving HTTP", "trap": "ready", "missing.conf": "No such file"}
TOKEN = "a-token-of-sufficient-length"  # noqa: S105  made up
KEY = "key-of-the-model"


def blocks(heading: str) -> list[tuple[str, str]]:
    """Return the code blocks of a section, each with its language."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return BLOCK.findall(section)


def session() -> list[tuple[str, list[str]]]:
    """Return what is typed in the first session, each with the lines that are shown as its answer."""
    steps: list[tuple[str, list[str]]] = []
    for language, text in blocks("A first session"):
        if language == "sh":
            steps.append((text, []))
        else:
            steps[-1][1].extend(text.splitlines())
    return steps


def agree(shown: str, printed: str) -> bool:
    """Tell whether a line is as it is shown, but for pids and times; an object shown with `…` may have more fields."""
    if not shown.startswith("{"):
        return bool(comparable(shown) == comparable(printed))
    expected = comparable(json.loads(shown.replace(LEFT_OUT, "")))
    answer = comparable(json.loads(printed))
    if LEFT_OUT in shown:
        answer = {name: value for name, value in answer.items() if name in expected}
    return list(expected.items()) == list(answer.items())


def comparable(value: Any, name: str = "") -> Any:
    """Return a value without pids, and without the numbers in texts: times, ports and pids as well."""
    match value:
        case str():
            return NUMBERS.sub("N", RUN_ID.sub("RUN", value))
        case dict():
            return {key: comparable(inner, key) for key, inner in value.items()}
        case list():
            return [comparable(inner, name) for inner in value]
        case _:
            return "PID" if name in PIDS else value


class Reader:
    """Somebody who copies the README's commands into a shell, with other ports and places than are named there."""

    def __init__(self, service: Service, site: Path) -> None:
        self.service = service
        second = str(free_port())
        self.names = {"localhost:8000": f"localhost:{service.port}", "3000": str(free_port()), "3001": second}
        self.names["/tmp/site"] = str(site)  # noqa: S108  the README's
        self.names_shown = {str(service.log_dir): "/srv/llm-shell/logs", str(site): "/tmp/site", second: "3001"}  # noqa: S108  the README's

    def type(self, text: str) -> list[str]:
        """Run the commands and return what they print."""
        for name, own in self.names.items():
            text = text.replace(name, own)
        done = subprocess.run(["/bin/bash", "-ec", text], capture_output=True, text=True, check=True, timeout=60)
        printed = done.stdout
        for own, name in self.names_shown.items():
            printed = printed.replace(own, name)
        return printed.splitlines()

    def look(self, text: str, shown: list[str]) -> list[str]:
        """Run the commands, again and again where they only look, until they print what is shown or 5 s have passed."""

        if "POST" in text or "-d" in text or not shown:
            return self.type(text)

        def agreeing() -> list[str]:
            lines = self.type(text)
            same = len(shown) == len(lines) and all(map(agree, shown, lines))
            return lines if same else []

        return wait_until(agreeing, 5)

    def wait_for(self, text: str) -> None:
        """Wait, as a reader does without noticing, until a command that was just started has got somewhere."""
        for command, line in PRINTED.items():
            if command in text:
                self.service.wait_for_output(line)
        if "missing.conf" in text or "/restart" in text:
            wait_until(lambda: self.service.status()["status"] == "exited")


def test_the_first_session_goes_as_shown(serve: Services, tmp_path: Path) -> None:
    """Typed in one after another, the commands answer what the README says, field by field but for pids and times."""
    reader = Reader(serve(), tmp_path / "site")
    steps = session()
    assert len(steps) > 8
    for text, shown in steps:
        printed = reader.look(text, shown)
        if shown:
            assert len(printed) == len(shown), printed
        for line, answer in zip(shown, printed, strict=False):
            assert agree(line, answer), f"shown: {line}\nis:    {answer}"
        reader.wait_for(text)
    assert not reader.service.status()["leftover_pids"]


def test_nothing_is_served_to_the_network() -> None:
    """No command of README and docs lets a web server listen on every address, or serve the working directory."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for line in page.read_text().splitlines():
            if "-m http.server" in line:
                assert re.search(r"-m http\.server (?:\d+|PORT) --bind 127\.0\.0\.1", line), f"{page.name}: {line}"


class Model(BaseHTTPRequestHandler):
    """A model behind an API of OpenAI's form; a subclass says what it answers."""

    asked: ClassVar[list[dict[str, Any]]]
    keys: ClassVar[set[str]]

    @staticmethod
    def decide(results: list[str]) -> dict[str, Any]:
        """Return what the model says after these results of its calls."""
        raise NotImplementedError

    def do_POST(self) -> None:
        """Answer with the next call of the tool, or with the last word."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({"path": self.path, **body})
        self.keys.add(self.headers["Authorization"])
        results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        message = {"role": "assistant", "content": None, **self.decide(results)}
        answer = json.dumps({"choices": [{"message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def use_tool(arguments: str, number: int) -> dict[str, Any]:
    """Return a model's message that calls the tool."""
    function = {"name": "shell", "arguments": arguments}
    return {"tool_calls": [{"id": f"call-{number}", "type": "function", "function": function}]}


class Curious(Model):
    """A model that wants to know how a command ends, and then says what it printed."""

    asked: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[set[str]] = set()

    @staticmethod
    def decide(results: list[str]) -> dict[str, Any]:
        """Return the call that follows from the last result."""
        match json.loads(results[-1]) if results else None:
            case None:
                arguments: dict[str, object] = {"call": "kill"}
            case {"status": 404, "detail": str()}:
                arguments = {"call": "start", "command": "echo hello; exit 3"}
            case {"status": "running"}:
                arguments = {"call": "status", "wait": 0.05}
            case {"status": "exited", "exit_code": 3}:
                arguments = {"call": "logs"}
            case {"content": text}:
                return {"content": f"It printed {text}."}
        return use_tool(json.dumps(arguments), len(results))


CALLS = "start, status, logs, kill, restart"
# What a model may send by mistake, or in a form of its own, and what the result of that call says.
SLIPS = [
    ('{"call": "status", "wait": "0.01"}', '"status":404'),
    ('{"call": "status", "wait": null}', '"status":404'),
    ('{"call": "status", "wait": -1}', '"status":404'),
    ('{"call": "status", "wait": "soon"}', "could not convert string to float: 'soon'"),
    ('{"call": "stop"}', CALLS),
    ('{"call": ["kill"]}', CALLS),
    ('{"wait": 0}', CALLS),
    ('{"call": "status"', "JSONDecodeError"),
    ("", "JSONDecodeError"),
    ('["status"]', "must be a mapping"),
    ('{"call": "start"}', "command: Give the command to run."),
    ('{"call": "start", "command": "exec sleep 60", "env": null}', '"status":"running"'),
    ('{"call": "logs", "seconds": 5}', '"total_lines":0'),
    ('{"call": "restart", "command": "x"}', "timeout"),
    ('{"call": "restart", "timeout": 3}', '"status":"running"'),
    ('{"call": "kill", "timeout": 3, "command": null}', '"status":"killed"'),
]


class Careless(Model):
    """A model that makes each of the slips, one after another."""

    asked: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[set[str]] = set()

    @staticmethod
    def decide(results: list[str]) -> dict[str, Any]:
        """Return the next slip."""
        if len(results) == len(SLIPS):
            return {"content": "Enough."}
        return use_tool(SLIPS[len(results)][0], len(results))


class Lonely(Model):
    """A model that asks once and repeats what it is told."""

    asked: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[set[str]] = set()

    @staticmethod
    def decide(results: list[str]) -> dict[str, Any]:
        """Return the one call, then its result."""
        return {"content": results[0]} if results else use_tool('{"call": "status"}', 0)


@contextmanager
def serving(model: type[Model]) -> Iterator[str]:
    """Serve the model's API and return where."""
    with HTTPServer(("127.0.0.1", 0), model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def run_agent(folder: Path, model: type[Model], url: str) -> str:
    """Run the README's agent, as it stands there, with a model and a service; return what it prints."""
    [code] = [text for language, text in blocks("Give it to a model") if language == "python"]
    (folder / "agent.py").write_text(code)
    with serving(model) as model_url:
        names = {
            "MODEL_URL": model_url,
            "MODEL_KEY": KEY,
            "MODEL": "stub",
            "LLM_SHELL_URL": url,
            "LLM_SHELL_TOKEN": TOKEN,
        }
        done = subprocess.run(
            [sys.executable, folder / "agent.py", "What does it print?"],
            env=os.environ | names,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_agent_works(serve: Services, tmp_path: Path) -> None:
    """The README's agent has a model's calls done by a service with a token, refusals included."""
    service = serve(settings={"LLM_SHELL_TOKEN": TOKEN})
    assert run_agent(tmp_path, Curious, service.url) == "It printed hello.\n"
    assert Curious.keys == {f"Bearer {KEY}"}
    assert {asked["path"] for asked in Curious.asked} == {"/v1/chat/completions"}
    [tool] = Curious.asked[0]["tools"]
    assert set(tool["function"]["parameters"]["properties"]) == {"call", "command", "name", "wait"}
    *before, last = Curious.asked
    assert last["messages"][0] == {"role": "user", "content": "What does it print?"}
    for message, answer in zip(last["messages"][1::2], last["messages"][2::2], strict=True):
        assert message["tool_calls"][0]["id"] == answer["tool_call_id"]
    assert len(before) >= 4


def test_a_models_slips_become_results(serve: Services, tmp_path: Path) -> None:
    """Whatever a model sends is done, or answered with what is wrong with it, and the agent goes on."""
    service = serve(settings={"LLM_SHELL_TOKEN": TOKEN})
    assert run_agent(tmp_path, Careless, service.url) == "Enough.\n"
    results = [message["content"] for message in Careless.asked[-1]["messages"] if message["role"] == "tool"]
    assert len(results) == len(SLIPS)
    for (arguments, said), result in zip(SLIPS, results, strict=True):
        assert said in result, f"{arguments}: {result}"


def test_the_agent_tells_the_model_that_the_service_is_down(tmp_path: Path) -> None:
    """Where nothing listens, the model is told so, and the agent ends with the model's words."""
    assert "Connection refused" in run_agent(tmp_path, Lonely, f"http://127.0.0.1:{free_port()}")
