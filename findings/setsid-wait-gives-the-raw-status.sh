#!/usr/bin/env bash
# Software: setsid of util-linux 2.38.1 (Debian 2.38.1-5, any update).
# Expected: `setsid --wait CMD` ends with CMD's exit code, and where a signal ended CMD with 128 plus its number, or with 1 and a message.
# Happens: that depends on who starts it. Where it leads a process group it has to fork, and a death by SIGTERM becomes code 15, by SIGHUP 1,
#   with the message "did not exit normally: No such file or directory". Elsewhere it does not fork, CMD takes its place, and
#   its parent sees the death by the signal.
# Why it matters here: a command of ours leads its group, and bash replaces itself by a single command, as dash does not. So the same `setsid
#   --wait` gives 15 as a run's whole command under bash and 143 under dash or with a second command behind it; without
#   `--wait` the first form is over at once and leaves its program behind, the other waits for it.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq "util-linux=2.38.1-5*" 2>/dev/null && dpkg -x util-linux_*.deb root) || { echo "util-linux 2.38.1-5 is not to be had"; exit 1; }
setsid=$dir/root/usr/bin/setsid
"$setsid" --version | sed "s|$dir/root||"

# The code of `setsid --wait` whose program is ended by SIGNAL: in the place of the shell that leads the group, and behind that shell.
code() {
    local as_leader=0 as_child=0
    "$setsid" --wait bash -c 'exec "$0" --wait sh -c "kill -$1 \$\$"' "$setsid" "$1" 2>>"$dir/messages" || as_leader=$?
    "$setsid" --wait bash -c '"$0" --wait sh -c "kill -$1 \$\$"; exit $?' "$setsid" "$1" 2>/dev/null || as_child=$?
    echo "$1: $as_leader as the group's leader, $as_child otherwise"
}

{ code TERM; code HUP; } | tee "$dir/seen.txt"
grep -o 'did not exit normally.*' "$dir/messages" | sort -u
[[ $(cat "$dir/seen.txt") == $'TERM: 15 as the group\'s leader, 143 otherwise\nHUP: 1 as the group\'s leader, 129 otherwise' ]] ||
    { echo "changed"; exit 1; }
echo "as described"
