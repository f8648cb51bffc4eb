#!/usr/bin/env bash
# Software: PyPI mcp 2.3.0 (1.30.0 does the same).
# Expected: a string argument reaches a tool's parameter `text: str | None` as it was sent: it is valid for that type, and a plain `str`
#   is handed over untouched.
# Happens: for `str | None` the library first tries to read the string as JSON, and keeps an object, an array or null that comes out. So
#   `["x"]` and `{"a": 1}` are refused as "not a valid string", and the four letters `null` become None. With `text: str` all pass.
# Why it matters here: a tool that types into a program has exactly such a parameter ("text, or nothing, and keys"). Written with that library it
#   can't send JSON to a program, and types nothing for `null`. Schemas of ours must be checked with JSON-looking strings in
#   every optional text, and the one who wraps our calls with that library should give `text: str = ""`.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/server.py" <<'PYTHON'
from mcp.server import MCPServer

server = MCPServer("typing")


@server.tool()
def required(text: str) -> str:
    return f"got {text!r}"


@server.tool()
def optional(text: str | None = None) -> str:
    return f"got {text!r}"


server.run("stdio")
PYTHON
cat >"$dir/client.py" <<'PYTHON'
import sys

import anyio
from mcp import ClientSession, StdioServerParameters, stdio_client


async def main() -> None:
    parameters = StdioServerParameters(command=sys.executable, args=[sys.argv[1]])
    async with stdio_client(parameters) as (reading, writing), ClientSession(reading, writing) as session:
        await session.initialize()
        for tool in ("required", "optional"):
            for text in ("yes", "5", "null", '["x"]', '{"a": 1}'):
                answer = await session.call_tool(tool, {"text": text})
                said = answer.content[0].text
                print(f"{tool} {text}: {'refused' if 'valid string' in said else said}")


anyio.run(main)
PYTHON

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check mcp==2.3.0 2>/dev/null
timeout 30 "$dir/venv/bin/python" "$dir/client.py" "$dir/server.py" 2>/dev/null | tee "$dir/seen.txt"

cat >"$dir/expected.txt" <<'TEXT'
required yes: got 'yes'
required 5: got '5'
required null: got 'null'
required ["x"]: got '["x"]'
required {"a": 1}: got '{"a": 1}'
optional yes: got 'yes'
optional 5: got '5'
optional null: got None
optional ["x"]: refused
optional {"a": 1}: refused
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
