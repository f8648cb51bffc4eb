#!/usr/bin/env bash
# Software: PHP 8.2 (Debian's php8.2-cli 8.2, any update).
# Expected: `PHP_CLI_SERVER_WORKERS=3 php -S ADDRESS` ends its workers when SIGTERM ends it, as it does at Ctrl-C, so the port is free then.
# Happens: the process dies by the signal and its workers know nothing of it: all of them live on as orphans, hold the port and go on
#   answering. At Ctrl-C a terminal signals the whole group, which is why nobody sees it there.
# Why it matters here: whoever signals the process alone and takes its end for the server's leaves the old code serving on the port, and the
#   next `php -S` fails there, or its predecessor answers. A kill has to look for the members that have lost their parent and signal
#   them too, before it says that the tree is gone and the port free.
set -euo pipefail

dir=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill -KILL "$pid" 2>/dev/null || true; done; rm -rf "$dir"' EXIT
cd "$dir"
for package in "php8.2-cli=8.2.*" libargon2-1 libicu72 libsodium23 libxml2; do
    apt-get download -qq "$package" 2>/dev/null || { echo "$package is not to be had"; exit 1; }
done
for file in *.deb; do dpkg -x "$file" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu
php() { exec "$dir/root/usr/bin/php8.2" -n "$@"; }
(php -r 'echo PHP_VERSION, "\n";') | grep -o '^[0-9]*\.[0-9]*'

mkdir site
echo '<?php echo getmypid();' >site/index.php
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(PHP_CLI_SERVER_WORKERS=3 php -S "127.0.0.1:$port" -t site >log 2>&1) &
server=$!
pids=$server
for _ in $(seq 100); do curl -s "127.0.0.1:$port" >/dev/null && break; sleep 0.1; done
workers=$(cat "/proc/$server/task/$server/children")
pids="$server $workers"
answers() { curl -s --max-time 5 "127.0.0.1:$port" >answer && echo "the port answers" || echo "nobody answers"; }

{
    echo "workers: $(wc -w <<<"$workers"), $(answers)"
    code=0
    kill -TERM "$server"
    wait "$server" || code=$?
    echo "the server: code $code"
    sleep 1
    alive=0
    for pid in $workers; do kill -0 "$pid" 2>/dev/null && alive=$((alive + 1)); done
    echo "a second later: $alive workers, $(answers)"
    grep -qw "$(cat answer)" <<<"$workers" && echo "it is one of the workers"
} 2>messages >seen.txt
cat seen.txt
cat >expected.txt <<'TEXT'
workers: 3, the port answers
the server: code 143
a second later: 3 workers, the port answers
it is one of the workers
TEXT
cmp -s seen.txt expected.txt || { echo "changed"; exit 1; }
echo "as described"
