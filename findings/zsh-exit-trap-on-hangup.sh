#!/usr/bin/env bash
# Software: zsh 5.9 (Debian 5.9-4, any rebuild).
# Expected: a signal that ends `zsh -c` while it has no trap for that signal skips the EXIT trap, whichever signal it is (as in dash),
#   or runs it for all (as in bash), and in both cases the parent sees a death by that signal.
# Happens: SIGTERM ends it as expected, without the EXIT trap. SIGHUP runs the EXIT trap, and zsh then exits with code 1: for the
#   parent that is an ordinary failure, no death by a signal.
# Why it matters here: `signal: SIGHUP` can't be told from the wait status of such a run, `status` is `exited` with 1; and a clean-up in
#   an EXIT trap runs when a terminal is hung up but not on `/kill`, so a lock file that vanished in one test stays in the other.
set -euo pipefail

dir=$(mktemp -d)
group=
finish() {
    if [[ -n $group ]]; then kill -KILL -- "-$group" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT
(cd "$dir" && apt-get download -qq "zsh=5.9-4*" 2>/dev/null && dpkg -x zsh_*.deb root) || { echo "zsh 5.9-4 is not to be had"; exit 1; }

# The outcome of SIGNAL sent to the shell alone, in the midst of its foreground command.
outcome() {
    local out=$dir/$1 code=0
    setsid "$dir/root/bin/zsh" -f -c 'trap "echo cleaned up" EXIT; echo ready; sleep 3; echo went on' >"$out" 2>&1 &
    group=$!
    until grep -q ready "$out" 2>/dev/null; do sleep 0.05; done
    until [[ -n $(cat "/proc/$group/task/$group/children") ]]; do sleep 0.05; done
    kill "-$1" "$group"
    wait "$group" || code=$?
    kill -KILL -- "-$group" 2>/dev/null || true
    group=
    echo "$1: code $code, printed $(tail -n +2 "$out" | paste -sd, | sed 's/^$/nothing/')"
}

term=$(outcome TERM 2>/dev/null)
hup=$(outcome HUP 2>/dev/null)
printf '%s\n' "$term" "$hup"
[[ $term == "TERM: code 143, printed nothing" ]] || { echo "changed"; exit 1; }
[[ $hup == "HUP: code 1, printed cleaned up" ]] || { echo "changed"; exit 1; }
echo "as described"
