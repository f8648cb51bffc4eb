#!/usr/bin/env bash
# Software: npm esbuild 0.28.2.
# Expected: `esbuild --watch` that finds its standard input at the end builds once, as without --watch, and then stops watching.
# Happens: it stops before the first build: no output file, and exit code 0. With half a second of standard input the file is there;
#   so it is with `--watch=forever`, and without --watch.
# Why it matters here: a command's standard input is /dev/null. A model that starts a watcher sees `exited`, code 0, takes the build for done,
#   and looks for the fault in whatever reads the file that is not there.
set -euo pipefail

dir=$(mktemp -d)
forever=
trap '[[ -z $forever ]] || kill "$forever" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts esbuild@0.28.2
esbuild=$dir/node_modules/.bin/esbuild
"$esbuild" --version
echo 'console.log(1)' >in.js

there() { [[ -e $1 ]] && echo "its file is there" || echo "no file"; }

{
    for try in 1 2 3; do
        code=0
        "$esbuild" in.js --outfile="at-end-$try.js" --watch </dev/null 2>>messages || code=$?
        echo "--watch, input at its end: code $code, $(there "at-end-$try.js")"
    done
    code=0
    sleep 0.5 | "$esbuild" in.js --outfile=a-while.js --watch 2>>messages || code=$?
    echo "--watch, input for half a second: code $code, $(there a-while.js)"
    "$esbuild" in.js --outfile=forever.js --watch=forever </dev/null 2>>messages &
    forever=$!
    for _ in $(seq 100); do [[ -e forever.js ]] && break; sleep 0.1; done
    kill -0 "$forever" && echo "--watch=forever: runs on, $(there forever.js)"
    kill "$forever"
} >seen.txt
cat seen.txt
cat >expected.txt <<'TEXT'
--watch, input at its end: code 0, no file
--watch, input at its end: code 0, no file
--watch, input at its end: code 0, no file
--watch, input for half a second: code 0, its file is there
--watch=forever: runs on, its file is there
TEXT
cmp -s seen.txt expected.txt || { echo "changed"; exit 1; }
echo "as described"
