#!/usr/bin/env bash
# Software: bash 5.2.15 (Debian 5.2.15-2, any rebuild), beside dash 0.5.12 (Debian 0.5.12-2).
# Expected: `bash -c` execs its command without a fork where the text is one simple command. With a list (`a; b`, `a && b`) the shell stays
#   until the end as the parent of each program.
# Happens: bash execs the last command of a list as well: of `;`, `&&`, `||` and newlines, if it is a simple command on the last line. It stays
#   where that command has a redirection, is timed or negated, ends a pipeline, or is inside a compound command, a function or eval; in `a & b`;
#   where a blank line follows; and where a trap with a command is set. dash never gives its place without `exec`.
# Why it matters here: the pid of the shell is by then the last program's. A `>FILE` at the end decides whether `process_pid` is a shell or
#   that program, which of them is signalled first, and whether a signal's death shows as such or as 128 plus its number. And the text of the
#   command is on no command line any more: `pgrep -f` and `pkill -f` by its words find nothing.
set -euo pipefail

dir=$(mktemp -d)
shell=
finish() {
    if [[ -n $shell ]]; then kill -KILL -- "-$shell" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT
(cd "$dir" && apt-get download -qq "bash=5.2.15-2*" dash=0.5.12-2 2>/dev/null &&
    dpkg -x bash_*.deb root && dpkg -x dash_*.deb root) || { echo "bash 5.2.15-2 and dash 0.5.12-2 are not to be had"; exit 1; }

# Whether the process of `SHELL -c TEXT` has become the `sleep 8` in it, or has one below it.
become() {
    local child seen=
    setsid "$dir/root/bin/$1" -c "$2" </dev/null >/dev/null 2>&1 &
    shell=$!
    for _ in $(seq 200); do
        if [[ -n $seen ]]; then break; fi
        sleep 0.02
        if [[ $(tr '\0' ' ' <"/proc/$shell/cmdline") == "sleep 8 " ]]; then seen="is sleep"; fi
        for child in $(cat "/proc/$shell/task/$shell/children"); do
            if [[ $(tr '\0' ' ' <"/proc/$child/cmdline") == "sleep 8 " && -z $seen ]]; then seen="has sleep below it"; fi
        done
    done
    kill -KILL -- "-$shell"
    wait "$shell" 2>/dev/null || true
    shell=
    echo "$1 ${seen:-is unclear}: ${2@Q}"
}

{
    for text in 'sleep 8' 'true; sleep 8' 'true; sleep 8;' 'true && sleep 8' 'false || sleep 8' $'true\nsleep 8' 'ls | cat; sleep 8' \
        'true & true; sleep 8' 'trap "" USR1; sleep 8'; do become bash "$text"; done
    for text in 'true; sleep 8 >/dev/null' 'true; time sleep 8' 'true; ! sleep 8' 'true | sleep 8' '{ true; sleep 8; }' 'if true; then sleep 8; fi' \
        'f() { sleep 8; }; f' 'eval "true; sleep 8"' $'true; sleep 8\n\n' 'true & sleep 8' 'trap true USR1; sleep 8'; do become bash "$text"; done
    for text in 'sleep 8' 'true; sleep 8'; do become dash "$text"; done
    become dash 'true; exec sleep 8'
} 2>"$dir/messages" | tee "$dir/seen.txt"
cat >"$dir/expected.txt" <<'TEXT'
bash is sleep: 'sleep 8'
bash is sleep: 'true; sleep 8'
bash is sleep: 'true; sleep 8;'
bash is sleep: 'true && sleep 8'
bash is sleep: 'false || sleep 8'
bash is sleep: $'true\nsleep 8'
bash is sleep: 'ls | cat; sleep 8'
bash is sleep: 'true & true; sleep 8'
bash is sleep: 'trap "" USR1; sleep 8'
bash has sleep below it: 'true; sleep 8 >/dev/null'
bash has sleep below it: 'true; time sleep 8'
bash has sleep below it: 'true; ! sleep 8'
bash has sleep below it: 'true | sleep 8'
bash has sleep below it: '{ true; sleep 8; }'
bash has sleep below it: 'if true; then sleep 8; fi'
bash has sleep below it: 'f() { sleep 8; }; f'
bash has sleep below it: 'eval "true; sleep 8"'
bash has sleep below it: $'true; sleep 8\n\n'
bash has sleep below it: 'true & sleep 8'
bash has sleep below it: 'trap true USR1; sleep 8'
dash has sleep below it: 'sleep 8'
dash has sleep below it: 'true; sleep 8'
dash is sleep: 'true; exec sleep 8'
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
