#!/usr/bin/env bash
# Software: bash 5.2.15 (Debian 5.2.15-2, any rebuild).
# Expected: `bash -c` is not interactive and reads no file but $BASH_ENV. The manual's exception is a standard input connected to a
#   network, as rshd and sshd once gave it.
# Happens: Debian builds it so that SSH_CLIENT or SSH2_CLIENT in the environment is enough, whatever the standard input is, and even if it is
#   empty. Then `bash -c` reads ~/.bashrc, unless it is told --norc or the inherited SHLVL is 1 or more. SSH_CONNECTION, a script in a
#   file and the name `sh` do not do it.
# Why it matters here: a service started by `ssh HOST SERVICE` inherits the variable with SHLVL 0, since the shell in between gives its place away
#   and counts itself out; one started from an interactive bash has SHLVL 1. So every command of the one, and none of the other,
#   would run under the user's aliases, PATH and output. The variables must not reach a command's environment.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq "bash=5.2.15-2*" 2>/dev/null && dpkg -x bash_*.deb root) || { echo "bash 5.2.15-2 is not to be had"; exit 1; }
bash=$dir/root/bin/bash
ln -s "$bash" "$dir/sh"
echo 'echo bashrc' >"$dir/.bashrc"
echo 'echo command' >"$dir/script"

# What a shell started in this environment prints.
print() {
    local name=$1
    shift
    echo "$name: $(env -i HOME="$dir" PATH="$PATH" "$@" </dev/null 2>&1 | paste -sd' ')"
}

client="SSH_CLIENT=192.0.2.1 50000 22"
{
    print "neither" "$bash" -c 'echo command'
    print "SSH_CLIENT" "$client" "$bash" -c 'echo command'
    print "SSH_CLIENT, empty" SSH_CLIENT= "$bash" -c 'echo command'
    print "SSH2_CLIENT" "SSH2_${client#SSH_}" "$bash" -c 'echo command'
    print "SSH_CONNECTION" "SSH_CONNECTION=192.0.2.1 50000 192.0.2.2 22" "$bash" -c 'echo command'
    print "SSH_CLIENT, SHLVL 0" "$client" SHLVL=0 "$bash" -c 'echo command'
    print "SSH_CLIENT, SHLVL 1" "$client" SHLVL=1 "$bash" -c 'echo command'
    print "SSH_CLIENT, --norc" "$client" "$bash" --norc -c 'echo command'
    print "SSH_CLIENT, a script" "$client" "$bash" "$dir/script"
    print "SSH_CLIENT, as sh" "$client" "$dir/sh" -c 'echo command'
    print "SHLVL below bash -c" "$bash" -c 'printenv SHLVL'
} | tee "$dir/seen.txt"
cat >"$dir/expected.txt" <<'TEXT'
neither: command
SSH_CLIENT: bashrc command
SSH_CLIENT, empty: bashrc command
SSH2_CLIENT: bashrc command
SSH_CONNECTION: command
SSH_CLIENT, SHLVL 0: bashrc command
SSH_CLIENT, SHLVL 1: command
SSH_CLIENT, --norc: command
SSH_CLIENT, a script: command
SSH_CLIENT, as sh: command
SHLVL below bash -c: 0
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
