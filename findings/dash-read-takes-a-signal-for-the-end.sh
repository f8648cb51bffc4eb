#!/usr/bin/env bash
# Software: dash 0.5.12 (Debian 0.5.12-2), beside bash 5.2.
# Expected: a signal with a trap that comes while the shell waits in `read` runs the trap, and then `read` either goes on (bash) or
#   returns more than 128, as `wait` does, so that a script can tell it from the end of its input.
# Happens: in dash `read` returns 1 after the trap, just as at the end of the input. `while read line` ends in silence, with its input still open,
#   and the script goes on behind the loop and exits with 0.
# Why it matters here: a signal that only asks for something (SIGUSR1, SIGHUP) ends a loop that serves the run's stdin, and the run is `exited`, 0,
#   without a word: "the caller closed its input" and "the caller sent a signal" look alike. One more reason for bash as the default
#   shell, and for tests of signals to a program that waits for input to name the shell.
set -euo pipefail

dir=$(mktemp -d)
shell=
finish() {
    if [[ -n $shell ]]; then kill -KILL "$shell" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT
trap '' PIPE
(cd "$dir" && apt-get download -qq dash=0.5.12-2 2>/dev/null && dpkg -x dash_*.deb root) || { echo "dash 0.5.12-2 is not to be had"; exit 1; }
bash -c '[[ $BASH_VERSION == 5.2.* ]]' || { echo "this compares with bash 5.2"; exit 1; }

# What a loop that reads prints when SIGUSR1 comes first, and a line of input after it.
serve() {
    mkfifo "$dir/$1.in"
    "$2" -c 'trap "echo signal" USR1; echo ready; while read line; do echo "served $line"; done; echo "ended with $?"' \
        <"$dir/$1.in" >"$dir/$1.out" &
    shell=$!
    exec 3>"$dir/$1.in"
    until grep -q ready "$dir/$1.out" && [[ $(cut -d' ' -f3 "/proc/$shell/stat") == S ]]; do sleep 0.05; done
    kill -USR1 "$shell"
    until grep -q signal "$dir/$1.out"; do sleep 0.05; done
    # dash ends by itself here, with the writing end still open; bash waits on.
    for _ in $(seq 20); do
        if ! kill -0 "$shell" 2>/dev/null; then break; fi
        sleep 0.1
    done
    echo answer >&3 2>/dev/null || true
    exec 3>&-
    wait "$shell"
    shell=
    paste -sd, "$dir/$1.out"
}

serve bash bash >"$dir/bash.seen"
serve dash "$dir/root/bin/dash" >"$dir/dash.seen"
echo "bash: $(cat "$dir/bash.seen")"
echo "dash: $(cat "$dir/dash.seen")"
[[ $(cat "$dir/bash.seen") == "ready,signal,served answer,ended with 0" ]] || { echo "changed"; exit 1; }
[[ $(cat "$dir/dash.seen") == "ready,signal,ended with 0" ]] || { echo "changed"; exit 1; }
echo "as described"
