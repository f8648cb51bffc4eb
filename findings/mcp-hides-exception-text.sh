#!/usr/bin/env bash
# Software: PyPI mcp 2.3.0, beside mcp 1.30.0.
# Expected: a tool that raises `ValueError("port 3000 is taken")` answers with `isError` and the words "Error executing tool NAME: port 3000
#   is taken", as all of 1.x does: that text is how a model learns what to do next.
# Happens: 2.3.0 answers "Error executing tool NAME" and nothing else; the words go to the server's own log. Only the text of a
#   `ToolError` reaches the model.
# Why it matters here: whoever wraps this service's REST calls into tools with that library and lets the HTTP library raise for a 409 or
#   429 loses our `detail`, the one sentence that says how to go on. The wrapper in an example has to return the detail, or raise it as ToolError.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/server.py" <<'PYTHON'
try:
    from mcp.server import MCPServer as Server
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError:
    from mcp.server.fastmcp import FastMCP as Server
    from mcp.server.fastmcp.exceptions import ToolError

server = Server("ports")


@server.tool()
def plain() -> str:
    raise ValueError("port 3000 is taken")


@server.tool()
def meant() -> str:
    raise ToolError("port 3000 is taken")


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
        for tool in ("plain", "meant"):
            answer = await session.call_tool(tool, {})
            print(f"{tool}: {answer.content[0].text}")


anyio.run(main)
PYTHON

python3 -m venv "$dir/venv"
for version in 1.30.0 2.3.0; do
    "$dir/venv/bin/pip" install --quiet --disable-pip-version-check "mcp==$version" 2>/dev/null
    timeout 30 "$dir/venv/bin/python" "$dir/client.py" "$dir/server.py" >"$dir/$version.txt" 2>/dev/null
    sed "s/^/$version /" "$dir/$version.txt"
done

grep -qx 'plain: Error executing tool plain: port 3000 is taken' "$dir/1.30.0.txt" || { echo "changed"; exit 1; }
grep -qx 'plain: Error executing tool plain' "$dir/2.3.0.txt" || { echo "changed"; exit 1; }
grep -q '^meant: .*port 3000 is taken' "$dir/2.3.0.txt" || { echo "changed"; exit 1; }
echo "as described"
