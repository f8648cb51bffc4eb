#!/usr/bin/env bash
# Software: s6-log of s6 2.11.3.2, svlogd of runit 2.1.2, multilog of daemontools 0.76 (Debian's packages of the versions below).
# Expected: the loggers of the supervision suites, whose whole promise is that nothing printed is lost, keep the last line of a program
#   that ends without a newline, and add the newline themselves.
# Happens: only multilog does. s6-log and svlogd drop what follows the last newline, in silence and with exit code 0.
# Why it matters here: the words that matter most often have no newline: a prompt, `printf` before an abort, the message of a program
#   that dies in the midst of a line. So these tools are no judge of what a log must hold; a comparison with them needs text that ends
#   with a newline, and a test of ours that ends without one guards a promise that they don't make.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get download -qq s6=2.11.3.2-1 libs6-2.11=2.11.3.2-1 libskarnet2.13=2.13.1.1-1 libexecline2.9=2.9.3.0-1 execline=2.9.3.0-1 \
    runit=2.1.2-54 daemontools=1:0.76-8.1 2>/dev/null || { echo "a package of these versions is not to be had"; exit 1; }
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu
bin=$dir/root/usr/bin

mkdir s6 runit daemontools
printf 'first\nlast words' | timeout 10 "$bin/s6-log" ./s6
printf 'first\nlast words' | timeout 10 "$bin/svlogd" ./runit
printf 'first\nlast words' | timeout 10 "$bin/multilog" ./daemontools
for logger in s6 runit daemontools; do echo "$logger: $(paste -sd'|' "$logger/current")"; done

[[ $(cat s6/current) == first && $(cat runit/current) == first ]] || { echo "changed"; exit 1; }
[[ $(cat daemontools/current) == $'first\nlast words' ]] || { echo "changed"; exit 1; }
echo "as described"
