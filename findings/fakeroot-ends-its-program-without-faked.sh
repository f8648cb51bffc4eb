#!/usr/bin/env bash
# Software: fakeroot 1.31 (Debian 1.31-1.2) with its System V daemon, faked-sysv.
# Expected: when fakeroot's daemon has ended, the program's next stat() or chown() fails with an error, or acts for real.
# Happens: chown() says that it worked, and does nothing. The next stat() does not return: the library in the program prints
#   "semop(1): encountered an error" and ends the whole process with exit code 1; no exception, no handler, no `finally`.
# Why it matters here: the daemon is in a session of its own and nobody's child. Who ends a tree by signalling all at once ends it before the
#   program, whose clean-up then stops at the first look at a file. Daemons that serve the tree have to be told last.
set -euo pipefail

dir=$(mktemp -d)
daemon=
trap '[[ -z $daemon ]] || kill "$daemon" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
(apt-get download -qq "fakeroot=1.31-1.2" "libfakeroot=1.31-1.2" 2>/dev/null && for file in ./*.deb; do dpkg -x "$file" root; done) ||
    { echo "fakeroot 1.31-1.2 is not to be had"; exit 1; }
faked=$dir/root/usr/bin/faked-sysv
library=$(find "$dir/root" -name libfakeroot-sysv.so)
"$faked" --version

# What it prints is the key by which the library finds it, and its pid.
IFS=: read -r key daemon < <("$faked")
cat >its.py <<'PYTHON'
import os
import sys

open("file", "w").close()
os.chown("file", 12, 34)
print("with the daemon: the owner is", os.stat("file").st_uid, flush=True)
sys.stdin.readline()
try:
    os.chown("file", 56, 78)
    print("without: chown has worked", flush=True)
    os.stat("file")
    print("without: stat has worked", flush=True)
except OSError as error:
    print("without: the call has failed:", error.strerror, flush=True)
finally:
    print("without: finally", flush=True)
PYTHON
code=0
{
    for _ in $(seq 100); do grep -q owner seen.txt 2>/dev/null && break; sleep 0.1; done
    kill "$daemon"
    while kill -0 "$daemon" 2>/dev/null; do sleep 0.05; done
    echo go
} | FAKEROOTKEY=$key LD_PRELOAD=$library python3 its.py >seen.txt 2>messages.txt || code=$?
daemon=
echo "exit code $code" >>seen.txt
cat seen.txt messages.txt
printf 'with the daemon: the owner is 12\nwithout: chown has worked\nexit code 1\n' | cmp -s - seen.txt || { echo "changed"; exit 1; }
grep -q 'semop(1): encountered an error' messages.txt || { echo "changed"; exit 1; }
echo "as described"
