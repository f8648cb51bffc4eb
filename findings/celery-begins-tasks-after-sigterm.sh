#!/usr/bin/env bash
# Software: PyPI celery 5.7.0 with its prefork pool and kombu 5.7.0's filesystem broker.
# Expected: a worker's warm shutdown finishes the tasks under way and begins no other; the rest stays with the broker. At least so with
#   --prefetch-multiplier 1.
# Happens: with two of ten tasks under way SIGTERM comes, and the worker begins two more and finishes these, too, with either setting. It
#   ends with 0 after more than one task's length.
# Why it matters here: whoever stops a worker gracefully sets the time of grace by the longest task. It has to be more than twice
#   that: else SIGKILL cuts tasks short that began only after the order to stop.
set -euo pipefail

dir=$(mktemp -d)
worker=
trap '[[ -z $worker ]] || kill -KILL "$worker" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check celery==5.7.0 kombu==5.7.0 billiard==4.3.2 2>/dev/null
venv/bin/celery --version
cat >tasks.py <<'PYTHON'
import pathlib
import time

import celery

app = celery.Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = dict(data_folder_in="broker", data_folder_out="broker", control_folder="broker")


@app.task
def work(number):
    pathlib.Path(f"begun-{number}").touch()
    time.sleep(3)
    pathlib.Path(f"done-{number}").touch()
PYTHON

count() { find . -maxdepth 1 -name "$1-*" | wc -l; }

for options in "" "--prefetch-multiplier 1"; do
    rm -rf broker begun-* done-*
    mkdir broker
    venv/bin/python -c 'from tasks import work; [work.delay(number) for number in range(10)]'
    # shellcheck disable=SC2086 # none or two words
    venv/bin/celery -A tasks worker --pool prefork --concurrency 2 $options >worker.log 2>&1 &
    worker=$!
    for _ in $(seq 600); do (($(count begun) >= 2)) && break; sleep 0.05; done
    sleep 1
    under_way=$(count begun)
    kill -TERM "$worker"
    code=0
    wait "$worker" || code=$?
    worker=
    echo "${options:-default}: under way at SIGTERM $under_way, done in the end $(count done), code $code"
done | tee seen.txt
cat >expected.txt <<'TEXT'
default: under way at SIGTERM 2, done in the end 4, code 0
--prefetch-multiplier 1: under way at SIGTERM 2, done in the end 4, code 0
TEXT
cmp -s seen.txt expected.txt || { echo "changed"; exit 1; }
echo "as described"
