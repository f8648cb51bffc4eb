#!/usr/bin/env bash
# Software: bash 5.2.15 (Debian 5.2.15-2, any rebuild).
# Expected: `wait` without arguments waits for the background jobs and, as the manual says, for the last process substitution only where
#   `$!` is still that one. Earlier ones, and one that a later `&` has replaced in `$!`, are not waited for.
# Happens: it waits for every process substitution that still runs, whatever `$!` says. `wait "$!"` waits for the job alone.
# Why it matters here: scripts log through such a substitution (`> >(tee FILE)`) and end with `wait`. They then run until the last reader has
#   ended, and a reader that waits for the script's own output to close is waited for as well. A run that seems stuck after its last job
#   has ended is the script's doing: `wait` has to name the pids it means. Tests of `/kill` with a logger beside jobs must name them, too.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq "bash=5.2.15-2*" 2>/dev/null && dpkg -x bash_*.deb root) || { echo "bash 5.2.15-2 is not to be had"; exit 1; }
bash=$dir/root/bin/bash

two=$(timeout 20 "$bash" -c 'true > >(sleep 2; echo slow); true > >(sleep 1; echo quick); wait; echo done' | paste -sd' ')
replaced=$(timeout 20 "$bash" -c 'true > >(sleep 2; echo slow); sleep 0.2 & wait; echo done' | paste -sd' ')
named=$(timeout 20 "$bash" -c 'true > >(sleep 2; echo slow); sleep 0.2 & wait "$!"; echo done' | paste -sd' ')

echo "two substitutions, wait: $two"
echo "one substitution and a job, wait: $replaced"
echo "one substitution and a job, wait for the job: $named"
[[ $two == "quick slow done" && $replaced == "slow done" && $named == "done slow" ]] || { echo "changed"; exit 1; }
echo "as described"
