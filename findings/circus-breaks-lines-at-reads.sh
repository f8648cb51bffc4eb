#!/usr/bin/env bash
# Software: PyPI circus 0.19.0.
# Expected: its FileStream with a `time_format` puts the time before each line, and a line that is long, or not finished yet, stays one.
# Happens: it stamps each read of at most 1,024 bytes and ends what it read with a newline. A line of 5,000 bytes becomes five, each with a
#   time of its own, and a prompt becomes a line apart from the answer printed behind it. Nothing in the log tells such a break from a real one.
# Why it matters here: a JSON line or a traceback of a run that is logged twice can't be put together again, and counts of lines differ. It is why
#   a piece of a line here shares its `seq` with the rest and is marked: a log must not hold a newline that was never printed.
set -euo pipefail

dir=$(mktemp -d)
circusd=
finish() {
    if [[ -n $circusd ]]; then
        kill -TERM "$circusd" 2>/dev/null || true
        wait "$circusd" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap finish EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check circus==0.19.0 2>/dev/null

cat >"$dir/printer.py" <<'PYTHON'
import time

print("x" * 5000, flush=True)
time.sleep(1)
print("Name? ", end="", flush=True)
time.sleep(1)
print("shop", flush=True)
time.sleep(60)
PYTHON
cat >"$dir/circus.ini" <<INI
[circus]
endpoint = ipc://$dir/endpoint
pubsub_endpoint = ipc://$dir/pubsub
[watcher:printer]
cmd = python3 $dir/printer.py
stdout_stream.class = FileStream
stdout_stream.filename = $dir/out.log
stdout_stream.time_format = at
INI
"$dir/venv/bin/circusd" "$dir/circus.ini" >/dev/null 2>&1 &
circusd=$!
for _ in $(seq 200); do
    if grep -qs shop "$dir/out.log"; then break; fi
    sleep 0.1
done

sed -E 's/^at \[[0-9]+\] \| //' "$dir/out.log" >"$dir/lines"
long=$(grep -c '^x*$' "$dir/lines")
echo "one line of 5,000 bytes became $long lines, the longest of $(awk '{ if (length > most) most = length } END { print most }' "$dir/lines") bytes"
echo "the prompt and its answer: $(grep -v '^x*$' "$dir/lines" | paste -sd'|')"
[[ $long -eq 5 && $(grep -v '^x*$' "$dir/lines" | paste -sd'|') == "Name? |shop" ]] || { echo "changed"; exit 1; }
echo "as described"
