"""Programs whose command ends and may leave something running."""

from bench.programs import files
from bench.programs.trial import Case

GPG = ("apt:git:git", "apt:gpg:gpg", "apt:gpg-agent:gpg-agent")
SSH = ("apt:ssh:openssh-client", "apt:sshd:openssh-server")
SSHD = "/usr/sbin/sshd -D -f sshd_config"
POSTGRES = ("apt:psql:postgresql",)

LEAVING = (
    Case(
        "git commit -S, gpg-agent",
        "git commit -q -S --allow-empty -m signed",
        GPG,
        prepare=f"gpg --batch --passphrase '' --quick-gen-key 'me <me@example.org>'; gpgconf --kill all; {files.GIT}",
    ),
    Case(
        "git commit, gc",
        "for i in $(seq 3000); do echo $i $RANDOM > f$i; done; git add . && git commit -q -m many",
        ("apt:git:git",),
        prepare=f"{files.GIT} && git config gc.auto 1",
    ),
    Case(
        "git credential-cache",
        r"printf 'host=h\nusername=u\npassword=p\n\n' | git credential-cache store",
        ("apt:git:git",),
        remark="`git credential-cache exit` ends it",
    ),
    Case(
        "ssh, ControlPersist",
        f"ssh {files.SSH}",
        SSH,
        {"sshd_config": files.SSHD},
        files.SSH_KEYS,
        shown="ssh -o ControlPersist=60 … true",
        beside=SSHD,
    ),
    Case(
        "ssh -v, ControlPersist",
        f"ssh -v {files.SSH}",
        SSH,
        {"sshd_config": files.SSHD},
        files.SSH_KEYS,
        shown="ssh -v -o ControlPersist=60 … true",
        beside=SSHD,
        remark="with -v it keeps standard error",
    ),
    Case("ssh-agent", "ssh-agent -a $PWD/agent", ("apt:ssh-agent:openssh-client",)),
    Case(
        "adb",
        "adb start-server",
        ("apt:adb:adb",),
        environment={"ANDROID_ADB_SERVER_PORT": "{port}"},
    ),
    Case(
        "watchman",
        "watchman watch $PWD",
        ("apt:watchman:watchman",),
    ),
    Case("gradle", "gradle --offline hello", ("apt:gradle:gradle",), files.GRADLE),
    Case("bazel", "bazel build //:hello", ("apt:bazel:bazel-bootstrap",), files.BAZEL),
    Case(
        "PostgreSQL, with -l",
        f"{files.AS_POSTGRES}/pg_ctl -D data -o '{files.POSTGRES_OPTIONS}' -l data/log start",
        POSTGRES,
        shown="pg_ctl -l log start",
        prepare=files.POSTGRES,
    ),
    Case(
        "PostgreSQL, without -l",
        f"{files.AS_POSTGRES}/pg_ctl -D data -o '{files.POSTGRES_OPTIONS}' start",
        POSTGRES,
        shown="pg_ctl start",
        prepare=files.POSTGRES,
        remark="with `-l LOG` it is a daemon",
    ),
    Case(
        "redis-server, daemon",
        "redis-server --port 0 --unixsocket $PWD/socket --daemonize yes",
        ("apt:redis-server:redis-server",),
    ),
    Case("memcached -d", "memcached -d -u root -s $PWD/socket", ("apt:memcached:memcached",)),
    Case("biome", "biome start", ("npm:@biomejs/biome@2.6.8",), {"biome.json": "{}"}, remark="`biome stop` ends it"),
    Case(
        "eslint_d",
        "eslint_d app.js",
        ("npm:eslint_d@15.0.3",),
        {"app.js": "let one = 1\n", "eslint.config.js": "module.exports = []\n"},
    ),
    Case(
        "prettierd",
        "prettierd app.js < app.js",
        ("npm:@fsouza/prettierd@0.29.0",),
        {"app.js": "one( )\n"},
    ),
    Case("turbo daemon", "turbo daemon start", ("npm:turbo@2.11.11",), files.TURBO, files.GIT),
    Case(
        "nx daemon",
        "nx daemon --start",
        ("npm:nx@24.0.6",),
        files.NPM | {"nx.json": "{}"},
        remark="`NX_DAEMON=false` goes without",
    ),
    Case("pm2", "pm2 start server.js", ("npm:pm2@7.0.4",), files.NPM),
    Case(
        "pm2 --version",
        "pm2 --version",
        ("npm:pm2@7.0.4",),
        remark="starts pm2's daemon: what `pm2 start` runs later belongs to that",
    ),
    Case("dmypy", "dmypy run -- app.py", ("pip:mypy==2.4.1",), files.APP),
    Case(
        "sccache",
        "sccache cc -c one.c",
        ("apt:sccache:sccache", "apt:cc:gcc"),
        {"one.c": "int one;\n"},
    ),
    Case("ccache", "ccache cc -c one.c", ("apt:ccache:ccache", "apt:cc:gcc"), {"one.c": "int one;\n"}),
    Case(
        "epmd",
        "epmd -daemon",
        ("apt:epmd:erlang-base",),
        environment={"ERL_EPMD_PORT": "{port}"},
    ),
    Case("tmux", "tmux -S $PWD/socket new-session -d 'sleep 600'", ("apt:tmux:tmux",)),
    Case(
        "screen",
        "screen -dm sleep 600",
        ("apt:screen:screen",),
        environment={"SCREENDIR": "{folder}/home"},
    ),
    Case(
        "Xvfb &", "Xvfb :{port} -nolisten tcp & sleep 1", ("apt:Xvfb:xvfb",), remark="better a named process of its own"
    ),
    Case("npm start &", "npm start & sleep 2", ("apt:npm:npm",), files.NPM, remark="better a named process of its own"),
    Case(
        "nohup &",
        "nohup python3 app.py > out &",
        ("apt:nohup:coreutils",),
        files.APP,
        remark="redirects nothing that is no terminal",
    ),
    Case("setsid -f", "setsid -f python3 app.py", ("apt:setsid:util-linux",), files.APP),
    Case(
        "setsid -f, output away",
        "setsid -f python3 app.py < /dev/null > out 2>&1",
        ("apt:setsid:util-linux",),
        files.APP,
    ),
    Case(
        "ProcessPoolExecutor", "python3 pool.py", ("apt:python3:python3",), files.POOL, remark="what `os._exit` leaves"
    ),
    Case("chromium, script killed", "python3 browse.py", ("apt:chromium:chromium",), files.BROWSER),
    Case(
        "puppeteer, script killed",
        "node browse.mjs",
        ("npm:puppeteer-core@25.16.0", "apt:chromium:chromium"),
        files.PUPPETEER,
    ),
    Case(
        "celery multi",
        "celery multi start one -A work --pidfile=one.pid --logfile=one.log -c 2",
        ("pip:celery==5.7.0",),
        files.CELERY,
    ),
    Case(
        "gunicorn --daemon",
        "gunicorn --daemon --bind unix:web.socket web:app",
        ("pip:gunicorn==27.0.1",),
        files.WSGI,
    ),
    Case(
        "supervisord, daemon",
        "supervisord -c it.conf",
        ("pip:supervisor==4.3.0",),
        files.APP | {"it.conf": files.SUPERVISORD},
    ),
    Case(
        "jest beside watchman",
        "jest --watchman",
        ("npm:jest@30.5.2", "apt:watchman:watchman"),
        files.JEST,
        files.GIT,
    ),
    Case(
        "esbuild --serve",
        "esbuild one.js --outdir=out --serve=127.0.0.1:{port}",
        ("npm:esbuild@0.28.2",),
        {"one.js": ""},
        remark='ends with its input: `"stdin": "open"`',
    ),
    Case(
        "tailwindcss --watch, beside watchman",
        "tailwindcss -i in.css -o out.css --watch",
        ("npm:tailwindcss@4.3.5 @tailwindcss/cli@4.3.5", "apt:watchman:watchman"),
        {"in.css": ".one { color: red }\n"},
        remark='ends with its input: `"stdin": "open"`; starts watchman where it is installed',
    ),
)
