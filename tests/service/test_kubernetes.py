"""The Kubernetes manifests: valid, consistent, and their router tried on services at addresses of their own."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it carries no types
import pytest
import yaml
from gunicorn.config import GracefulTimeout

from app.config import SettingsError, load_settings
from app.supervisor.supervisor import SHUTDOWN_TIMEOUT
from tests.kit.network import free_port
from tests.kit.places import ROOT
from tests.kit.service import Service
from tests.kit.services import Services, services_in
from tests.kit.waiting import wait_until
from tests.service import nginx

FOLDER = ROOT / "deploy" / "kubernetes"
# The oldest that has all the fields used, and the newest whose schemas there are.
VERSIONS = ("1.29", "1.37")
TOKEN = "a-token-of-sufficient-length"  # noqa: S105  made up
ALL = 3
# Each of the router's workers keeps what the DNS said for 2 s, counted in whole seconds.
DNS_MEMORY = 3.5
Manifest = dict[str, Any]


def manifests(*names: str) -> list[Manifest]:
    """Return the documents of the files, by default of all that describe objects of a cluster."""
    files = [FOLDER / name for name in names] or sorted(set(FOLDER.glob("*.yaml")) - {FOLDER / "kustomization.yaml"})
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]


def called(kind: str, name: str) -> Manifest:
    """Return one manifest."""
    [found] = [each for each in manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod_of(kind: str, name: str) -> tuple[Manifest, Manifest]:
    """Return the pod that a manifest makes, and its one container."""
    pod: Manifest = called(kind, name)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return pod, container


WORKLOADS = [("StatefulSet", "llm-shell"), ("Deployment", "llm-shell-router")]
workloads = pytest.mark.parametrize(("kind", "name"), WORKLOADS, ids=[name for _, name in WORKLOADS])


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version: str) -> None:
    """Kubernetes' own schemas, strictly, with no unknown field, accept every manifest."""
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_kustomization_names_every_file() -> None:
    """`kubectl apply -k` applies every manifest but the example of the secret, which would overwrite the real one."""
    [kustomization] = yaml.safe_load_all((FOLDER / "kustomization.yaml").read_text())
    [router] = kustomization["configMapGenerator"]
    applied = {*kustomization["resources"], *router["files"], "kustomization.yaml", "secret.yaml"}
    assert {path.name for path in FOLDER.iterdir()} == applied
    assert router["name"] == "llm-shell-router"
    [namespace] = manifests("namespace.yaml")
    assert kustomization["namespace"] == namespace["metadata"]["name"]


@workloads
def test_pods_are_confined(kind: str, name: str) -> None:
    """No pod is root, can become it, writes to its root, or finds a key to the cluster."""
    pod, container = pod_of(kind, name)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    confinement = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == confinement
    assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}


@workloads
def test_what_is_mounted_exists(kind: str, name: str) -> None:
    """Each mount has its volume and each selector its pods; the shells' volume is one that outlives the pod."""
    workload = called(kind, name)
    pod, container = pod_of(kind, name)
    claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
    volumes = [volume["name"] for volume in pod["volumes"]]
    assert {mount["name"] for mount in container["volumeMounts"]} == {*claims, *volumes}
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels
    assert called("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"] == labels
    assert called("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"] == labels
    assert called("Service", name)["spec"]["selector"] == labels


def test_settings_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service accepts the StatefulSet's settings, as it would not those that service links add."""
    monkeypatch.chdir(tmp_path)
    pod, container = pod_of("StatefulSet", "llm-shell")
    monkeypatch.setenv("LLM_SHELL_TOKEN", TOKEN)
    for entry in container["env"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    settings = load_settings()
    [claim] = called("StatefulSet", "llm-shell")["spec"]["volumeClaimTemplates"]
    storage = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
    assert settings.log_keep * settings.log_max_bytes <= storage / 2
    # What Kubernetes makes of a Service named llm-shell-router.
    monkeypatch.setenv("LLM_SHELL_ROUTER_SERVICE_HOST", "10.96.0.7")
    with pytest.raises(SettingsError):
        load_settings()
    assert pod["enableServiceLinks"] is False


def test_secret_as_shipped_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example's token is one that the service does not start with; its file is where the image looks for it."""
    [secret] = manifests("secret.yaml")
    pod, container = pod_of("StatefulSet", "llm-shell")
    [volume] = [volume for volume in pod["volumes"] if "secret" in volume]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    [(key, text)] = secret["stringData"].items()
    assert f"{mount['mountPath']}/{key} .env" in (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    (tmp_path / ".env").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="LLM_SHELL_TOKEN: must be at least"):
        load_settings()


def test_pods_have_time_to_stop() -> None:
    """A shell's pod has longer than its longest graceful stop, the router's longer than the longest request."""
    shell, _ = pod_of("StatefulSet", "llm-shell")
    router, _ = pod_of("Deployment", "llm-shell-router")
    assert shell["terminationGracePeriodSeconds"] > GracefulTimeout.default + SHUTDOWN_TIMEOUT
    [longest] = re.findall(r"proxy_read_timeout (\d+)s;", (FOLDER / "router.conf").read_text())
    assert router["terminationGracePeriodSeconds"] >= int(longest) > 600


class Dns:
    """The cluster's DNS for the names of pods: `addresses` holds those that are there, by the number of the shell."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        """Answer one question of RFC 1035, section 4: with an address, with none of that type, or with NXDOMAIN."""
        labels, place = [], 12
        while length := query[place]:
            labels.append(query[place + 1 : place + 1 + length].decode())
            place += 1 + length
        [kind] = struct.unpack("!H", query[place + 1 : place + 3])
        found = re.fullmatch(r"llm-shell-(\d+)\.llm-shell\.llm-shell\.svc\.cluster\.local", ".".join(labels))
        address = self.addresses.get(found[1]) if found else None
        answers = [address] if address and kind == 1 else []
        head = query[:2] + struct.pack("!5H", 0x8180 if address else 0x8183, 1, len(answers), 0, 0)
        records = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(each) for each in answers]
        return head + query[12 : place + 5] + b"".join(records)


class Cluster:
    """The router, and shells at loopback addresses of their own, all on the same port, found by the DNS."""

    def __init__(self, services: Services, dns: Dns, client: nginx.Client, port: int) -> None:
        self.router = client
        self._services = services
        self._dns = dns
        self._port = port
        self._shells: dict[int, Service] = {}
        self._log_dirs: dict[int, str] = {}
        self._hosts = 10

    def bring_up(self, number: int) -> None:
        """Start a shell at an address that was never used before, on the volume of that number."""
        self._hosts += 1
        address = f"127.0.77.{self._hosts}"
        settings = {"LLM_SHELL_TOKEN": TOKEN, "LLM_SHELL_TRUSTED_PROXIES": "127.0.0.0/8"}
        if number in self._log_dirs:
            settings["LLM_SHELL_LOG_DIR"] = self._log_dirs[number]
        # The second is where the harness asks for its health.
        binds = ["--bind", f"{address}:{self._port}", "--bind", "127.0.0.1:0"]
        shell = self._services(*binds, settings=settings)
        self._shells[number] = shell
        self._log_dirs.setdefault(number, str(shell.log_dir))
        self._dns.addresses[str(number)] = address

    def wait_for(self, number: int) -> None:
        """Wait until every worker of the router must have asked the DNS again, and the shell answers."""
        forgotten = time.monotonic() + DNS_MEMORY
        path = f"/shells/{number}/health"
        wait_until(lambda: self.router.answers(path) and time.monotonic() > forgotten, 4 * DNS_MEMORY)

    def take_down(self, number: int) -> None:
        """Delete a shell's pod: its name goes, its process is stopped, its volume stays."""
        del self._dns.addresses[str(number)]
        assert self._shells.pop(number).stop() == 0

    def content(self, number: int, query: str = "") -> str:
        """Return what a shell's run has printed, asked through the router."""
        return str(self.router.get(f"/shells/{number}/logs{query}").json["content"])

    def start(self, number: int, command: str) -> Manifest:
        """Start a command in a shell, through the router, and return its status object."""
        reply = self.router.post(f"/shells/{number}/start", {"command": command})
        assert reply.status == 201, reply.body
        return dict(reply.json)


def site(dns_port: int, ports: tuple[int, int], tls: tuple[Path, Path]) -> str:
    """Return the shipped configuration with this machine's DNS, ports (the router's, the shells') and paths."""
    changes = {
        "kube-dns.kube-system.svc.cluster.local": f"127.0.0.1:{dns_port}",
        "svc.cluster.local:8000": f"svc.cluster.local:{ports[1]}",
        "listen 8443": f"listen 127.0.0.1:{ports[0]}",
        "/etc/llm-shell-tls/tls.crt": str(tls[0]),
        "/etc/llm-shell-tls/tls.key": str(tls[1]),
        "/dev/stdout": "access.json",
    }
    return nginx.substitute((FOLDER / "router.conf").read_text(), changes)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate and its key."""
    return nginx.make_certificate(tmp_path_factory.mktemp("tls"))


def test_router_configuration_is_clean(tls: tuple[Path, Path], tmp_path: Path) -> None:
    """`nginx -t` accepts the router's configuration without a warning."""
    told = nginx.Nginx(tmp_path, site(5353, (8443, 8000), tls)).test()
    assert "syntax is ok" in told
    assert "warn" not in told


@pytest.fixture(scope="module")
def cluster(tls: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a router with three shells."""
    folder = tmp_path_factory.mktemp("cluster")
    ports = (free_port(), free_port())
    with ExitStack() as cleanup:
        dns = Dns()
        cleanup.callback(dns.close)
        services = cleanup.enter_context(services_in(folder))
        cleanup.enter_context(nginx.running(folder / "router", site(dns.port, ports, tls)))
        client = nginx.Client(ports[0], tls[0], {"Authorization": f"Bearer {TOKEN}"})
        cluster = Cluster(services, dns, client, ports[1])
        for number in range(ALL):
            cluster.bring_up(number)
        yield cluster


def test_router_keeps_shells_apart(cluster: Cluster) -> None:
    """Each shell has a process, a log and a state of its own, and a call to one reaches that one alone."""
    started = {number: cluster.start(number, f"echo shell {number}; exec sleep 300") for number in range(ALL)}
    assert len({status["process_pid"] for status in started.values()}) == ALL
    for number in range(ALL):
        wait_until(lambda: cluster.content(number) == f"shell {number}")  # noqa: B023  called within this turn
    assert cluster.router.post("/shells/1/kill").json["status"] == "killed"
    states = [cluster.router.get(f"/shells/{number}/status").json["status"] for number in range(ALL)]
    assert states == ["running", "killed", "running"]
    assert cluster.content(2, "?lines=0&run_id=" + started[2]["run_id"]) == "shell 2"
    for number in (0, 2):
        cluster.router.post(f"/shells/{number}/kill")


def test_router_while_a_shell_is_away(cluster: Cluster) -> None:
    """A shell that is gone is told so and harms no other; back at another address, it has its own log again."""
    run_id = cluster.start(1, "echo mine; exec sleep 300")["run_id"]
    wait_until(lambda: cluster.content(1) == "mine")
    cluster.take_down(1)
    away = cluster.router.get("/shells/1/status")
    assert (away.status, away.headers["Content-Type"]) == (502, "application/problem+json")
    assert away.json["detail"].startswith("Shell 1 does not answer")
    for number in (0, 2):
        assert cluster.start(number, "true")["status"] == "running"
    cluster.bring_up(1)
    cluster.wait_for(1)
    assert cluster.content(1, f"?run_id={run_id}") == "mine"
    ended = cluster.router.get("/shells/1/status")  # with its pod, and its record is in the volume
    assert (ended.status, ended.json["run_id"], ended.json["status"]) == (200, run_id, "killed")


def test_router_says_where_a_shell_is(cluster: Cluster) -> None:
    """A shell's own description and page know the path under which the router serves them."""
    assert cluster.router.get("/shells/2/openapi.json").json["servers"] == [{"url": "/shells/2"}]
    assert cluster.router.get("/shells/2/docs").status == 200


def test_router_passes_the_token(cluster: Cluster) -> None:
    """Without the token, or with another, a shell refuses: the router neither adds one nor lets anybody in."""
    for header in ("", "Bearer another-" + TOKEN):
        assert cluster.router.get("/shells/0/status", headers={"Authorization": header}).status == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health", 200),
        ("/", 404),
        ("/status", 404),
        ("/shells/0", 404),
        ("/shells/00/status", 404),
        ("/shells/-1/status", 404),
        ("/shells/x/status", 404),
        ("/shells/0/../../status", 404),
        ("/shells/0/%0d%0aX:%20y/status", 404),
        ("/shells/7/status", 502),
    ],
)
def test_router_on_other_paths(cluster: Cluster, path: str, status: int) -> None:
    """What names no shell is 404, a shell that there is not 502, in the API's own form of an error."""
    reply = cluster.router.get(path)
    assert reply.status == status
    assert reply.json["status"] == ("healthy" if status == 200 else status)


def test_router_refuses_large_bodies(cluster: Cluster) -> None:
    """A body of more than 1 MiB ends at the router."""
    reply = cluster.router.post("/shells/0/start", {"command": "true", "env": {"A": "x" * (1 << 20)}})
    assert (reply.status, reply.json["title"]) == (413, "Request Entity Too Large")
