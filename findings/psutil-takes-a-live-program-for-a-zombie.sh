#!/usr/bin/env bash
# Software: psutil 7.1.3 (PyPI), CPython 3.11's standard library, Linux.
# Expected: a program whose first thread has ended while another goes on and prints is "sleeping" or "running" to psutil, has a command line,
#   and `Process.wait(timeout)` waits for its end.
# Happens: it is a "zombie" for as long as it works, `cmdline()` raises ZombieProcess, and so do exe() and cwd(); it can be told from
#   a dead one by its threads alone. `wait(timeout)` does wait, as `is_running()` does call it running.
# Why it matters here: Linux gives the state of the first thread for the whole program, and some runtimes let that end. A supervisor that
#   drops zombies from its list of survivors, as is usual, leaves such a program behind after a kill and calls the tree gone.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3.11 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check psutil==7.1.3

cat >"$dir/program.py" <<'PROGRAM'
import ctypes, threading, time

def work() -> None:
    for number in range(30):
        print(number, flush=True)
        time.sleep(0.1)

threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
PROGRAM

cat >"$dir/look.py" <<'LOOK'
import subprocess, sys, time
import psutil

program = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE)
process = psutil.Process(program.pid)
try:
    first = program.stdout.readline()
    time.sleep(0.5)
    print("status:", process.status())
    for question in ("cmdline", "exe", "cwd"):
        try:
            getattr(process, question)()
            print(question, "is told")
        except psutil.ZombieProcess:
            print(question, "raises ZombieProcess")
    print("threads left:", process.num_threads() > 1, "running:", process.is_running())
    try:
        process.wait(0.2)
        print("it had ended")
    except psutil.TimeoutExpired:
        print("it goes on")
    print("lines printed meanwhile:", len(program.stdout.read().split()) > 20)
finally:
    program.kill()
    program.wait()
LOOK

"$dir/venv/bin/python" "$dir/look.py" "$dir/program.py" | tee "$dir/seen.txt"
expected='status: zombie
cmdline raises ZombieProcess
exe raises ZombieProcess
cwd raises ZombieProcess
threads left: True running: True
it goes on
lines printed meanwhile: True'
[[ $(cat "$dir/seen.txt") == "$expected" ]] || { echo "changed"; exit 1; }
echo "as described"
