#!/usr/bin/env bash
# Software: PyPI Flask 3.1.3 (Werkzeug 3.1.9) with gunicorn 27.0.1.
# Expected: `url_map.merge_slashes = False` makes each path stand for itself: `//status` is 404, as `/run//output` is. With the default
#   both are redirected.
# Happens: it is so within a path only. Slashes at its beginning are removed before the setting is looked at, so `//status` and `///status` are
#   answered as `/status`, redirected in neither case, and `request.path` says `/status` as well. What was asked is in `PATH_INFO`
#   and `RAW_URI` alone.
# Why it matters here: one route has any number of names. nginx with `merge_slashes off` tells them apart: a `location = /kill` that waits longer
#   for its answer does not see `//kill`, which goes to `location /` and is carried out all the same, and an access log counts it as
#   another path. A service for which such a path is wrong has to look at `PATH_INFO` itself: `request.path` can't show it.
set -euo pipefail

dir=$(mktemp -d)
server=
finish() {
    if [[ -n $server ]]; then kill "$server" 2>/dev/null || true; fi
    wait
    rm -rf "$dir"
}
trap finish EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check Flask==3.1.3 Werkzeug==3.1.9 gunicorn==27.0.1 2>/dev/null
cat >"$dir/app.py" <<'PYTHON'
import os

from flask import Flask, request

app = Flask(__name__)
app.url_map.merge_slashes = os.environ["MERGE"] == "True"


@app.get("/status")
@app.get("/run/output")
def show() -> str:
    return f", path {request.path}, PATH_INFO {request.environ['PATH_INFO']}"
PYTHON

# What each path is answered with this setting of merge_slashes.
ask() {
    (cd "$dir" && MERGE=$1 exec venv/bin/gunicorn --no-control-socket --bind "unix:$dir/socket" app:app) 2>/dev/null &
    server=$!
    for _ in $(seq 100); do
        if curl --silent --output "$dir/ready" --unix-socket "$dir/socket" http://localhost/; then break; fi
        sleep 0.1
    done
    for path in /status //status ///status /run/output /run//output; do
        code=$(curl --silent --output "$dir/body" --write-out '%{http_code}' --unix-socket "$dir/socket" "http://localhost$path")
        echo "merge_slashes=$1, $path: $code$(if [[ $code == 200 ]]; then cat "$dir/body"; fi)"
    done
    kill "$server"
    wait "$server" || true
    server=
}

{ ask False; ask True; } | tee "$dir/seen.txt"
cat >"$dir/expected.txt" <<'TEXT'
merge_slashes=False, /status: 200, path /status, PATH_INFO /status
merge_slashes=False, //status: 200, path /status, PATH_INFO //status
merge_slashes=False, ///status: 200, path /status, PATH_INFO ///status
merge_slashes=False, /run/output: 200, path /run/output, PATH_INFO /run/output
merge_slashes=False, /run//output: 404
merge_slashes=True, /status: 200, path /status, PATH_INFO /status
merge_slashes=True, //status: 200, path /status, PATH_INFO //status
merge_slashes=True, ///status: 200, path /status, PATH_INFO ///status
merge_slashes=True, /run/output: 200, path /run/output, PATH_INFO /run/output
merge_slashes=True, /run//output: 308
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
