"""The small projects that the measured programs work on."""

# A program that cleans up for a moment, and says so.
APP = {
    "app.py": """import signal, sys, time

def stop(number, frame):
    time.sleep(0.3)
    print("cleaned up", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("app is ready", flush=True)
while True:
    time.sleep(60)
"""
}
APPS = "app is ready[^$]*app is ready"
NODE_SERVER = """const http = require("http");
http.createServer((request, response) => response.end("hello")).listen({port}, "127.0.0.1", () => console.log("ready"));
"""
NPM = {
    "package.json": '{"private": true, "scripts": {"start": "node server.js", "dev": "node server.js"}}',
    "server.js": NODE_SERVER,
}
WSGI = {
    "web.py": """def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
}
ASGI = {
    "web.py": """async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""
}
FLASK = {
    "web.py": """from flask import Flask

app = Flask(__name__)
"""
}
CELERY = {
    "work.py": """from celery import Celery

app = Celery("work", broker="filesystem://")
folders = ("data_folder_in", "data_folder_out", "control_folder")
app.conf.broker_transport_options = {name: "{folder}" for name in folders}
"""
}
VITE = {
    "package.json": '{"private": true, "type": "module"}',
    "index.html": '<script type="module" src="/main.js"></script>',
    "main.js": "console.log(1)",
}
# Next compiles nothing before a page is asked for.
NEXT = {
    "package.json": '{"private": true}',
    "pages/index.js": 'export default function Page() { return "hello" }',
}
WEBPACK = {
    "package.json": '{"private": true}',
    "src/index.js": "console.log(1)",
    "index.html": "hello",
    "webpack.config.js": 'module.exports = {mode: "development", '
    'devServer: {port: {port}, host: "127.0.0.1", static: "."}}',
}
JEST = {
    "package.json": '{"private": true, "jest": {}}',
    "sum.test.js": "test('sum', () => { expect(1 + 1).toBe(2) })",
}
VITEST = {
    "package.json": '{"private": true, "type": "module"}',
    "sum.test.js": "import {test, expect} from 'vitest'; test('sum', () => { expect(1 + 1).toBe(2) })",
}
TURBO = {
    "package.json": '{"private": true, "packageManager": "npm@10.0.0", "workspaces": ["web"]}',
    "package-lock.json": '{"lockfileVersion": 3, "packages": {"": {"workspaces": ["web"]}, "web": {}}}',
    "turbo.json": '{"tasks": {"dev": {"persistent": true, "cache": false}}}',
    "web/package.json": '{"name": "web", "scripts": {"dev": "node server.js"}}',
    "web/server.js": NODE_SERVER,
}
SUPERVISORD = """[supervisord]
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
[program:a]
command=python3 app.py
stdout_logfile={folder}/a.log
[program:b]
command=python3 app.py
stdout_logfile={folder}/b.log
"""
SSHD = """ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
"""
SSH_KEYS = "ssh-keygen -q -t ed25519 -N '' -f host-key; ssh-keygen -q -t ed25519 -N '' -f key; mkdir -p /run/sshd"
SSH = (
    "-p {port} -i key -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o IdentitiesOnly=yes"
    " -o ControlMaster=auto -o ControlPath={folder}/master -o ControlPersist=60 127.0.0.1 true"
)
GIT = "git init -q . && git config user.name me && git config user.email me@example.org"
# PostgreSQL refuses to run as root.
AS_POSTGRES = "setpriv --reuid=postgres --regid=postgres --init-groups $(ls -d /usr/lib/postgresql/*/bin)"
POSTGRES = f"mkdir data && chown postgres data && {AS_POSTGRES}/initdb -D data -A trust"
POSTGRES_OPTIONS = "-p {port} -k ."
POOL = {
    "pool.py": """import os, time
from concurrent.futures import ProcessPoolExecutor

pool = ProcessPoolExecutor(2)
list(pool.map(abs, range(4)))
os._exit(0)
"""
}
BROWSER = {
    "browse.py": """import os, subprocess, time

subprocess.Popen(
    ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=profile",
     "--remote-debugging-port=0", "about:blank"],
)
time.sleep(4)
os.kill(os.getpid(), 9)
"""
}
# As puppeteer starts it: in a session of its own, its output a pipe to the script.
PUPPETEER = {
    "browse.mjs": """import puppeteer from "puppeteer-core";

await puppeteer.launch({executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"]});
process.kill(process.pid, "SIGKILL");
"""
}
BAZEL = {"WORKSPACE": "", "BUILD": 'genrule(name = "hello", outs = ["hello.txt"], cmd = "echo hello > $@")'}
GRADLE = {"build.gradle": "task hello { doLast { println 'hello' } }"}
