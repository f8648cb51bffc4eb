#!/usr/bin/env bash
# Software: npm eventsource-parser 3.1.1 (the parser beneath npm's eventsource and the MCP SDKs), beside PyPI httpx-sse 0.4.3.
# Expected: an event is delivered when the blank line after it has come, whichever of the three line ends that server-sent events allow is used:
#   LF, CRLF or a lone CR.
# Happens: with CR the blank line is held back until another byte arrives, since a LF might follow. On a live stream each event comes
#   with the next one, and the last before a pause, or before the end, does not come. httpx-sse delivers the last one, at the latest at the end.
# Why it matters here: `/follow` and streamed answers of `/mcp` must end lines with LF (as ours do), never with what a program printed: a `\r`
#   that got into the framing would hide the last state from clients, and only while nothing more comes, so a busy test passes.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts eventsource-parser@3.1.1
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check httpx==0.28.1 httpx-sse==0.4.3 2>/dev/null

cat >parse.mjs <<'JAVASCRIPT'
import { createParser } from "eventsource-parser";

for (const [name, end] of [["LF", "\n"], ["CRLF", "\r\n"], ["CR", "\r"]]) {
  const seen = [];
  const parser = createParser({ onEvent: (event) => seen.push(event.data) });
  for (const word of ["one", "two"]) {
    parser.feed(`data: ${word}${end}${end}`);
    console.log(`eventsource-parser, ${name}, after "${word}": ${seen.join(" ") || "nothing"}`);
  }
}
JAVASCRIPT
cat >parse.py <<'PYTHON'
import httpx
from httpx_sse import EventSource

for name, end in (("LF", "\n"), ("CRLF", "\r\n"), ("CR", "\r")):
    body = "".join(f"data: {word}{end}{end}" for word in ("one", "two"))
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body.encode())
    print(f"httpx-sse, {name}, at the end: {' '.join(event.data for event in EventSource(response).iter_sse())}")
PYTHON

{ node parse.mjs; venv/bin/python parse.py; } | tee seen.txt
cat >expected.txt <<'TEXT'
eventsource-parser, LF, after "one": one
eventsource-parser, LF, after "two": one two
eventsource-parser, CRLF, after "one": one
eventsource-parser, CRLF, after "two": one two
eventsource-parser, CR, after "one": nothing
eventsource-parser, CR, after "two": one
httpx-sse, LF, at the end: one two
httpx-sse, CRLF, at the end: one two
httpx-sse, CR, at the end: one two
TEXT
cmp -s seen.txt expected.txt || { echo "changed"; exit 1; }
echo "as described"
