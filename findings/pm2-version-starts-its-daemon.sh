#!/usr/bin/env bash
# Software: npm pm2 7.0.4.
# Expected: `pm2 --version` and `pm2 --help` print what they are asked for and leave nothing behind, as any program's do.
# Happens: where no daemon runs, each of them starts one, which lives on after it. Standard output of --version has a page of banner
#   and two lines about the daemon before the number, if it is the first call in a home; a second prints the number alone.
# Why it matters here: a look at the version, such as a model or a script does before it uses a tool, leaves a daemon in the run that asked, and
#   that one becomes the parent of all that any later `pm2 start` runs: those servers belong to the tree of the question,
#   not to that of the start, and are ended with it. Whoever wants the number alone has to take the last line.
set -euo pipefail

dir=$(mktemp -d)
export HOME=$dir/home PM2_HOME=$dir/home/.pm2
daemon() { cat "$PM2_HOME/pm2.pid" 2>/dev/null || true; }
trap 'pid=$(daemon); [[ -z $pid ]] || kill "$pid" 2>/dev/null || true; sleep 1; rm -rf "$dir"' EXIT
mkdir "$dir/home"
cd "$dir"
npm init --yes --no-update-notifier >/dev/null
npm install --silent --no-update-notifier --no-audit --no-fund --ignore-scripts pm2@7.0.4
pm2=$dir/node_modules/.bin/pm2

alive() { local pid; pid=$(daemon); [[ -n $pid ]] && kill -0 "$pid" 2>/dev/null && echo "a daemon runs" || echo "no daemon"; }

# Call pm2 with an option, with a daemon running or without.
call() {
    "$pm2" "$1" >said.txt 2>messages </dev/null
    echo "$1: $(($(wc -l <said.txt) > 10)) for more than ten lines, the last word is $(tail -n 1 said.txt | grep -o '[^ ]*$'), $(alive)"
}
end() { local pid; pid=$(daemon); kill "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done; }

{
    alive
    call --version
    call --version
    end
    alive
    call --help | sed 's/lines, the.*, /lines, /'
} >seen.txt
cat seen.txt
cat >expected.txt <<'TEXT'
no daemon
--version: 1 for more than ten lines, the last word is 7.0.4, a daemon runs
--version: 0 for more than ten lines, the last word is 7.0.4, a daemon runs
no daemon
--help: 1 for more than ten lines, a daemon runs
TEXT
cmp -s seen.txt expected.txt || { echo "changed"; exit 1; }
echo "as described"
