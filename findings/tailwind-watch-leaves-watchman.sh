#!/usr/bin/env bash
# Software: npm @tailwindcss/cli 4.3.5 with tailwindcss 4.3.5, and watchman 4.9.0 (Debian's).
# Expected: `tailwindcss --watch` watches by the kernel's inotify, as watchers in Node do, so that nothing is left when it ends.
# Happens: its @parcel/watcher asks for a `watchman` on the path first, which starts a server: that has a session of its own and lives on
#   when tailwindcss has ended, even where it ended at once with 0, without a word, since its standard input was at its end.
#   Without watchman on the path nothing is left.
# Why it matters here: a build tool leaves a daemon that it does not name, on those machines alone where watchman happens to be installed. The
#   daemon must be in nobody's way, belong to the run that started it, and end with the service.
set -euo pipefail

dir=$(mktemp -d)
pid() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' <("$dir/bin/watchman" --no-spawn get-pid 2>/dev/null) 2>/dev/null || true; }
trap 'server=$(pid); [[ -z $server ]] || kill "$server" || true; sleep 0.5; rm -rf "$dir"' EXIT
cd "$dir"
for package in "watchman=4.9.0-*" libpcre3; do
    apt-get download -qq "$package" 2>/dev/null || { echo "$package is not to be had"; exit 1; }
done
for file in *.deb; do dpkg -x "$file" root; done
# The server's socket, state and log are in this folder, not where those of the machine's are.
mkdir bin state alone
ln -s "$(command -v node)" alone
cat >bin/watchman <<SHELL
#!/bin/sh
LD_LIBRARY_PATH=$dir/root/lib/x86_64-linux-gnu:$dir/root/usr/lib/x86_64-linux-gnu exec "$dir/root/usr/bin/watchman" \\
    --sockname="$dir/state/sock" --statefile="$dir/state/state" --logfile="$dir/state/log" --pidfile="$dir/state/pid" "\$@"
SHELL
chmod +x bin/watchman
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts @tailwindcss/cli@4.3.5 tailwindcss@4.3.5
mkdir site
echo '@import "tailwindcss";' >site/in.css

left() { [[ -n $(pid) ]] && echo "a server of watchman's is left" || echo "nothing is left"; }

{
    for path in "$dir/alone" "$dir/bin:$dir/alone"; do
        code=0
        (cd site && timeout 30 env PATH="$path" "$dir/node_modules/.bin/tailwindcss" -i in.css -o out.css --watch) </dev/null >said 2>&1 || code=$?
        [[ $path == "$dir/alone" ]] && where="without watchman" || where="with watchman on the path"
        sleep 1
        echo "$where: code $code, $(grep -ci watchman said || true) lines name watchman, $(left)"
    done
} >seen.txt
cat seen.txt
cat >expected.txt <<'TEXT'
without watchman: code 0, 0 lines name watchman, nothing is left
with watchman on the path: code 0, 0 lines name watchman, a server of watchman's is left
TEXT
cmp -s seen.txt expected.txt || { echo "changed"; exit 1; }
echo "as described"
