#!/usr/bin/env bash
# Software: PyPI jsonlines 4.0.0, without and with orjson 3.13.0 installed beside it.
# Expected: jsonlines reads lines with the standard library's json, so what it takes does not depend on what else is installed.
# Happens: it uses orjson when that can be imported, and the same file then reads differently: NaN and an escaped lone surrogate are
#   refused, and a whole number over 64 bits silently becomes a float.
# Why it matters here: our logs are JSON lines that others read, and this is the usual reader in Python. A log must hold nothing that only one of
#   the two takes: no NaN, no lone surrogate (bytes that are not UTF-8 are written as \xNN), no number over 64 bits. A test that reads it back
#   with one parser does not show that.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/read.py" <<'PYTHON'
import io
import sys

import jsonlines

for text in ("1180591620717411303424", "NaN", '"\\ud83d"', '"plain"'):
    try:
        seen = ascii(jsonlines.Reader(io.StringIO(text + "\n")).read())
    except jsonlines.InvalidLineError:
        seen = "refused"
    print(f"{sys.argv[1]}: {text} is {seen}")
PYTHON

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check jsonlines==4.0.0 2>/dev/null
"$dir/venv/bin/python" "$dir/read.py" "alone" | tee "$dir/seen.txt"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check orjson==3.13.0 2>/dev/null
"$dir/venv/bin/python" "$dir/read.py" "with orjson" | tee -a "$dir/seen.txt"

cat >"$dir/expected.txt" <<'TEXT'
alone: 1180591620717411303424 is 1180591620717411303424
alone: NaN is nan
alone: "\ud83d" is '\ud83d'
alone: "plain" is 'plain'
with orjson: 1180591620717411303424 is 1.1805916207174113e+21
with orjson: NaN is refused
with orjson: "\ud83d" is refused
with orjson: "plain" is 'plain'
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
