#!/usr/bin/env bash
# Software: PyPI Flask 3.1.3 (Werkzeug 3.1.9) with webargs 8.7.1 and marshmallow 4.4.0.
# Expected: in one app `request.get_json()` and webargs' parser, which flask-smorest uses, agree on which bodies are JSON, and answer 400 to
#   the others.
# Happens: they agree on neither. A body that begins with a byte order mark, or is UTF-16, is read by Flask and 400 by webargs. A whole number of
#   5,000 digits (valid JSON, over Python's limit for int) is 400 from Flask and 500 from webargs, which lets the ValueError through.
# Why it matters here: a call that reads its body in the other way than its neighbour refuses what that one takes, and a client's long number
#   looks like a fault of the server. All calls need one reader of bodies, which catches ValueError and RecursionError; a new surface (a
#   webhook, `/mcp`) that calls `get_json()` brings the difference back.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check Flask==3.1.3 Werkzeug==3.1.9 webargs==8.7.1 marshmallow==4.4.0 2>/dev/null
cat >"$dir/app.py" <<'PYTHON'
import logging

from flask import Flask, request
from marshmallow import fields
from webargs.flaskparser import use_args

app = Flask(__name__)
app.logger.setLevel(logging.CRITICAL)


@app.post("/flask")
def by_flask() -> str:
    return str(request.get_json()["a"])[:3]


@app.post("/webargs")
@use_args({"a": fields.Raw(required=True)}, location="json")
def by_webargs(args: dict) -> str:
    return str(args["a"])[:3]


bodies = {
    "plain": b'{"a": 1}',
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "5,000 digits": b'{"a": ' + b"1" * 5000 + b"}",
}
client = app.test_client()
for name, body in bodies.items():
    codes = [client.post(path, data=body, content_type="application/json").status_code for path in ("/flask", "/webargs")]
    print(f"{name}: Flask {codes[0]}, webargs {codes[1]}")
PYTHON
"$dir/venv/bin/python" "$dir/app.py" | tee "$dir/seen.txt"
cat >"$dir/expected.txt" <<'TEXT'
plain: Flask 200, webargs 200
byte order mark: Flask 200, webargs 400
UTF-16: Flask 200, webargs 400
5,000 digits: Flask 400, webargs 500
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
