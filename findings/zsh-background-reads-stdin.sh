#!/usr/bin/env bash
# Software: zsh 5.9 (Debian 5.9-4, any rebuild).
# Expected: a background job (`CMD &`) of a shell without job control reads /dev/null, as POSIX says and bash, dash, mksh, ksh93, yash
#   and busybox do; so does zsh, since it ignores SIGINT and SIGQUIT there as they do.
# Happens: zsh gives such a job /dev/null only where its own stdin is a terminal. On a pipe the job keeps it, and takes the
#   input that was meant for the foreground.
# Why it matters here: with zsh as the shell and stdin a pipe, `server & ask-me` lets the server eat the answer that the caller
#   writes, and "who reads the run's stdin" has to be asked of background members, too. A test with bash or dash can't show it.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq "zsh=5.9-4*" 2>/dev/null && dpkg -x zsh_*.deb root) || { echo "zsh 5.9-4 is not to be had"; exit 1; }
zsh=$dir/root/bin/zsh

in_zsh=$(echo answer | timeout 10 "$zsh" -f -c 'cat & wait')
in_bash=$(echo answer | timeout 10 bash -c 'cat & wait')
ignored=$("$zsh" -f -c 'grep SigIgn /proc/self/status & wait' | tr -d '[:space:]')

echo "$("$zsh" --version): the background job read '$in_zsh'; its ignored signals: $ignored"
echo "bash: the background job read '$in_bash'"
[[ $in_zsh == answer && $in_bash == "" && $ignored == *6 ]] || { echo "changed"; exit 1; }
echo "as described"
