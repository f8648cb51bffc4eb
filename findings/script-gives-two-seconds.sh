#!/usr/bin/env bash
# Software: script of util-linux 2.38.1 (Debian's bsdutils 1:2.38.1-5, any update).
# Expected: `script -c CMD` passes SIGTERM on to CMD and waits for its end, however long that takes, as timeout and dumb-init do.
# Happens: it passes SIGTERM on, sleeps for two seconds in any case, and then sends SIGKILL. A CMD that ends at once keeps script there for two
#   seconds all the same, and one that needs three for its clean-up never finishes that. With --return, too, the exit code is 0 then.
# Why it matters here: it is the usual way to give a command a terminal. A kill with ten seconds of grace cuts the clean-up short after two, and
#   the answer's code is that of a success; one with less than two seconds escalates although the command has ended long ago.
set -euo pipefail

dir=$(mktemp -d)
pid=
trap '[[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true; rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq "bsdutils=1:2.38.1-5*" 2>/dev/null && dpkg -x bsdutils_*.deb root) || { echo "bsdutils 2.38.1-5 is not to be had"; exit 1; }
script=$dir/root/usr/bin/script
"$script" --version | sed "s|$dir/root||"
cd "$dir"
cat >server.sh <<'SHELL'
trap 'sleep $1; echo "$1: cleaned up" >>fate; exit 0' TERM
echo ready >ready
while :; do sleep 0.1; done
SHELL

for need in 0 1 3; do
    rm -f ready
    "$script" -qec "exec bash server.sh $need" typescript </dev/null >said 2>&1 &
    pid=$!
    for _ in $(seq 100); do [[ -e ready ]] && break; sleep 0.1; done
    before=$(date +%s%N)
    kill -TERM "$pid"
    code=0
    wait "$pid" || code=$?
    pid=
    echo "$need s of clean-up: code $code after $((($(date +%s%N) - before + 500000000) / 1000000000)) s, $(grep "^$need:" fate 2>/dev/null || echo "$need: cut short")"
done | tee seen.txt
cat >expected.txt <<'TEXT'
0 s of clean-up: code 0 after 2 s, 0: cleaned up
1 s of clean-up: code 0 after 2 s, 1: cleaned up
3 s of clean-up: code 0 after 2 s, 3: cut short
TEXT
cmp -s seen.txt expected.txt || { echo "changed"; exit 1; }
echo "as described"
