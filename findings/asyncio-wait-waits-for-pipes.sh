#!/usr/bin/env bash
# Software: asyncio of CPython 3.11 (seen with 3.11.7), beside PyPI anyio 4.16.0 with trio 0.35.0 on the same interpreter.
# Expected: `await process.wait()` returns when the process has ended; only reading to the end of its output waits for whoever else
#   holds the pipe.
# Happens: with `stdout=PIPE` asyncio's wait() returns only when the pipe is closed as well, so `server & echo started` "runs" until the
#   server ends, with `returncode` set all the while. trio's wait() returns at once, as subprocess.Popen.wait() does.
# Why it matters here: an agent's harness in asyncio shows a command as running long after it has ended, and its time-out then kills a
#   shell that is gone. Exit is not end of output: `exit_code` must come from the process, `output_open` from the pipe, and
#   a client of ours that compares with asyncio will call the early `exited` wrong.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -c 'import sys; print(sys.version.split()[0]); sys.exit(sys.version_info[:2] != (3, 11))' || { echo "this is about CPython 3.11"; exit 1; }
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check anyio==4.16.0 trio==0.35.0 2>/dev/null
cat >"$dir/wait.py" <<'PYTHON'
import subprocess
import sys
import time

import anyio

COMMAND = "sleep 3 & echo started"


async def by_asyncio() -> float:
    import asyncio

    process = await asyncio.create_subprocess_shell(COMMAND, stdout=subprocess.PIPE)
    begun = time.monotonic()
    task = asyncio.ensure_future(process.wait())
    await asyncio.sleep(1)
    print(f"asyncio after a second: returncode {process.returncode}, wait() {'returned' if task.done() else 'still waits'}")
    await task
    return time.monotonic() - begun


async def by_trio() -> float:
    process = await anyio.open_process(COMMAND, stdin=None, stdout=subprocess.PIPE)
    begun = time.monotonic()
    await process.wait()
    return time.monotonic() - begun


backend = sys.argv[1]
took = anyio.run(by_asyncio if backend == "asyncio" else by_trio, backend=backend)
print(f"{backend}: wait() took {'until the pipe was closed' if took > 2 else 'until the exit'}")
PYTHON

for backend in asyncio trio; do timeout 30 "$dir/venv/bin/python" "$dir/wait.py" "$backend"; done | tee "$dir/seen.txt"
cat >"$dir/expected.txt" <<'TEXT'
asyncio after a second: returncode 0, wait() still waits
asyncio: wait() took until the pipe was closed
trio: wait() took until the exit
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
