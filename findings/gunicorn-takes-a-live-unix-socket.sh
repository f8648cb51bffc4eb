#!/usr/bin/env bash
# Software: PyPI gunicorn 27.0.1.
# Expected: a second gunicorn on a Unix socket on which another one is listening fails with "Address already in use", as with a TCP port; only the
#   socket that an ended one left behind is replaced.
# Happens: gunicorn removes whatever socket is at the path, asks nobody, and binds anew. It says nothing, and the first one goes on without a
#   way to reach it. When that one is stopped it removes its path, which is the second's by then, and now nobody is reachable.
# Why it matters here: behind nginx on a Unix socket, a service started twice takes the first one's callers away: their runs go on, and the second
#   knows none of the ids. To stop the hidden one afterwards, which looks like tidying up, takes the service down. So an
#   address has to be tried by a connection before gunicorn gets it.
set -euo pipefail

dir=$(mktemp -d)
servers=()
finish() {
    kill "${servers[@]}" 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap finish EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check gunicorn==27.0.1 2>/dev/null
cat >"$dir/app.py" <<'PYTHON'
import os


def app(environ, start_response):
    start_response("200 OK", [])
    return [os.environ["NAME"].encode()]
PYTHON

# Start a gunicorn of that name on the socket; true if it gets as far as a worker.
start() {
    (cd "$dir" && NAME=$1 exec venv/bin/gunicorn --no-control-socket --bind "unix:$dir/socket" app:app) 2>"$dir/$1.log" &
    servers+=("$!")
    for _ in $(seq 100); do
        if grep -qs "Booting worker" "$dir/$1.log"; then return; fi
        sleep 0.1
    done
    echo "$1 did not start: $(tail -n 1 "$dir/$1.log")"
    return 1
}
answer() { curl --silent --max-time 5 --unix-socket "$dir/socket" http://localhost/ || echo "nobody"; }

start first
echo "one: $(answer) answers" | tee "$dir/seen.txt"
start second
echo "two: $(answer) answers" | tee -a "$dir/seen.txt"
grep -q "WARNING\|ERROR" "$dir"/*.log || echo "two: no warning" | tee -a "$dir/seen.txt"
if kill -0 "${servers[0]}"; then echo "two: the first still runs" | tee -a "$dir/seen.txt"; fi
kill "${servers[0]}"
wait "${servers[0]}"
echo "the first stopped: $(answer) answers" | tee -a "$dir/seen.txt"
if kill -0 "${servers[1]}"; then echo "the first stopped: the second still runs" | tee -a "$dir/seen.txt"; fi
cat >"$dir/expected.txt" <<'TEXT'
one: first answers
two: second answers
two: no warning
two: the first still runs
the first stopped: nobody answers
the first stopped: the second still runs
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
