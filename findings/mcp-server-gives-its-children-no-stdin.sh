#!/usr/bin/env bash
# Software: PyPI mcp 2.3.0, beside mcp 1.30.0.
# Expected: a tool of a server on stdio that starts a program without redirecting it gives it the protocol's own pipes, in any version:
#   what the program prints lands among the messages, and if it reads, it waits at the client's pipe, beside the server.
# Happens: 1.30.0 does just that. 2.3.0 moves the protocol to other descriptors before the first message: in a tool descriptor 0 is /dev/null and
#   1 is a copy of stderr, for children, too.
# Why it matters here: shell tools of agents are often such servers. One that "worked" by handing a program the client's pipe behaves
#   differently after the upgrade: the program sees end of file at once (watchers end, prompts give up) and its output is in the
#   server's stderr instead of breaking the protocol. Reports of either kind are about that library's version and not about a run of ours.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/server.py" <<'PYTHON'
import os
import subprocess

try:
    from mcp.server import MCPServer as Server
except ImportError:
    from mcp.server.fastmcp import FastMCP as Server

server = Server("shell")


@server.tool()
def descriptors() -> str:
    same = os.path.sameopenfile(1, 2)
    return f"0 is {os.readlink('/proc/self/fd/0').split(':')[0]}, 1 is {'a copy of 2' if same else 'a descriptor of its own'}"


@server.tool()
def reading() -> str:
    code = subprocess.run(["timeout", "2", "cat"], stdout=subprocess.DEVNULL).returncode
    return f"a program that reads {'waits for the client' if code == 124 else 'is at the end of its input'}"


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
        for tool in ("descriptors", "reading"):
            print((await session.call_tool(tool, {})).content[0].text)


anyio.run(main)
PYTHON

python3 -m venv "$dir/venv"
for version in 1.30.0 2.3.0; do
    "$dir/venv/bin/pip" install --quiet --disable-pip-version-check "mcp==$version" 2>/dev/null
    timeout 30 "$dir/venv/bin/python" "$dir/client.py" "$dir/server.py" 2>"$dir/stderr" | paste -sd';' >"$dir/$version.txt"
    echo "$version: $(cat "$dir/$version.txt")"
done

[[ $(cat "$dir/1.30.0.txt") == "0 is pipe, 1 is a descriptor of its own;a program that reads waits for the client" ]] || { echo "changed"; exit 1; }
[[ $(cat "$dir/2.3.0.txt") == "0 is /dev/null, 1 is a copy of 2;a program that reads is at the end of its input" ]] || { echo "changed"; exit 1; }
echo "as described"
