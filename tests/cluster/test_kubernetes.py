"""The chart on a real cluster, by hand: install, runs, failures, scale, upgrade and uninstall, with their times.

It is used where KUBECONFIG names a cluster and BOUQUET_KUBERNETES_TAG the tag of images that its hosts have, or can
pull from BOUQUET_KUBERNETES_REGISTRY, with the packages of tests/apps/numpy_mean. It is never part of CI:

    KUBECONFIG=... BOUQUET_KUBERNETES_TAG=... pytest tests/cluster -s
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bouquet.host.submission import QUIET, STARTED
from bouquet.polling import poll_until
from tests.kubernetes_tools import kubernetes_tool

PROJECT = Path(__file__).parents[2]
APPS = PROJECT / "tests" / "apps"
CHART = PROJECT / "deploy" / "helm" / "bouquet"
NAMESPACE = f"bouquet-test-{os.getpid()}"
RELEASE = "fleet"
PREFIX = f"{RELEASE}-bouquet"
NODES = 5
PATIENCE = 400.0
CONTROL_PORT = "19393"

# A SuperNode's pod tries the SuperLink's address: which ports accept a connection?
CONNECT = """
import socket, sys
for port in (9091, 9092, 9093):
    try:
        socket.create_connection((sys.argv[1], port), 5).close()
        print(port)
    except OSError:
        pass
"""


class Cluster:
    """The cluster that KUBECONFIG names, and the release in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tools = {name: kubernetes_tool(name) for name in ("helm", "kubectl")}
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "flwr"),
            "CONTROL_PORT": CONTROL_PORT,
            "RESULTS": str(folder / "results"),
            "PATH": f"{self._tools['kubectl'].parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT / "deploy"),
        }

    def run(self, *command: str | Path) -> str:
        """Run a command, which must succeed; return what it printed."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=2 * PATIENCE, cwd=PROJECT
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def helm(self, *arguments: str) -> str:
        return self.run(self._tools["helm"], "--namespace", NAMESPACE, *arguments)

    def kubectl(self, *arguments: str) -> str:
        return self.run(self._tools["kubectl"], "--namespace", NAMESPACE, *arguments)

    def apply(self, *manifests: Any) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        subprocess.run(
            [self._tools["kubectl"], "apply", "-f", "-"], input=text, text=True, check=True, env=self.environment
        )

    def get(self, *what: str) -> Any:
        return json.loads(self.kubectl("get", *what, "--output", "json"))

    def bouquet(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "bouquet.host", *arguments)

    def flwr(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [Path(sys.executable).parent / "flwr", *arguments],
            env=self.environment | QUIET,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )

    def pods(self, role: str) -> dict[str, str]:
        """The pods of a role that are ready, with their uids."""
        items = self.get("pods", "--selector", f"app.kubernetes.io/component={role}")["items"]
        return {
            pod["metadata"]["name"]: pod["metadata"]["uid"]
            for pod in items
            if "deletionTimestamp" not in pod["metadata"]
            and {"type": "Ready", "status": "True"}.items()
            <= next((c for c in pod["status"].get("conditions", []) if c["type"] == "Ready"), {}).items()
        }

    def is_complete(self, nodes: int) -> bool:
        return len(self.pods("superlink")) == 1 and len(self.pods("supernode")) == nodes

    def submit(self, app: str, *options: str, **config: Any) -> "subprocess.CompletedProcess[str]":
        text = " ".join(f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in config.items())
        return self.flwr("run", str(APPS / app), "local-deployment", "--run-config", text, *options)

    def runs(self) -> dict[str, dict[str, Any]]:
        """The runs by id; nothing while the SuperLink is away."""
        try:
            listed = json.loads(self.flwr("ls", "local-deployment", "--format", "json").stdout)["runs"]
        except (ValueError, LookupError):
            return {}
        return {str(row["run-id"]): row for row in listed}

    def trains(self, nodes: int) -> None:
        """A run of five rounds whose result is right only if `nodes` nodes have the partitions from 0 on, each once."""
        done = self.submit("numpy_mean", "--stream", nodes=nodes, num_server_rounds=5)
        assert re.search(r"^numpy_mean \{", done.stdout, re.MULTILINE), done.stdout

    def has_size(self, partitions: int) -> bool:
        """Whether the nodes of a run see so many partitions."""
        done = self.submit("plain_fedavg", "--stream", num_server_rounds=1)
        report = re.search(r"^plain_fedavg (\{.*\})$", done.stdout, re.MULTILINE)
        return report is not None and json.loads(report[1])["evaluate"]["1"]["num-partitions"] == partitions

    def replies(self, run: str) -> list[dict[str, Any]]:
        """The replies that a run of `faulty` has had so far."""
        log = self.flwr("log", run, "local-deployment", "--show").stdout
        return [json.loads(line) for line in re.findall(r"^faulty (\{.*\})$", log, re.MULTILINE)]

    def start(self, **config: Any) -> str:
        """Start a run of `faulty`, and wait for its first replies; return its id."""
        found = STARTED.search(output := self.submit("faulty", nodes=NODES, **config).stdout)
        assert found, output
        timed(lambda: self.replies(found[1]), "the first replies of the run")
        return found[1]

    def end(self, run: str) -> str:
        """Wait for the end of a run; return its status."""

        def status() -> str:
            found = str(self.runs().get(run, {}).get("status", ""))
            return found if found.startswith("finished") else ""

        return str(timed(status, "the end of the run"))

    def show(self) -> None:
        for what in (("get", "pods,pvc,jobs"), ("get", "events"), ("logs", f"{PREFIX}-superlink-0", "--tail=40")):
            done = subprocess.run(
                [self._tools["kubectl"], "--namespace", NAMESPACE, *what],
                capture_output=True,
                text=True,
                env=self.environment,
            )
            print(done.stdout + done.stderr)


def timed(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a true answer, and print how long it took."""
    began = time.monotonic()
    found = poll_until(condition, PATIENCE, 1.0)
    assert found, f"{what}: not within {PATIENCE:g} s"
    print(f"{what}: {time.monotonic() - began:.1f} s")
    return found


def persistent_volumes(folder: Path) -> list[Any]:
    """Two volumes on this host, for a cluster without a StorageClass. Its only node must be this machine."""
    made = []
    for name in ("state", "results"):
        path = folder / name
        path.mkdir()
        os.chown(path, 49999, 49999)
        spec = {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": NAMESPACE}
        spec |= {"hostPath": {"path": str(path)}}
        metadata = {"name": f"{NAMESPACE}-{name}"}
        made.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec})
    return made


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A namespace of its own, which is removed at the end, and this fleet's values."""
    if not (os.environ.get("KUBECONFIG") and os.environ.get("BOUQUET_KUBERNETES_TAG")):
        pytest.skip("set KUBECONFIG and BOUQUET_KUBERNETES_TAG to test the chart on a cluster")
    cluster = Cluster(tmp_path_factory.mktemp("kubernetes"))
    volumes = [] if cluster.get("storageclasses")["items"] else persistent_volumes(cluster.folder)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *volumes)
    claim = {"storageClass": NAMESPACE} if volumes else {}
    small = {"requests": {"cpu": "200m", "memory": "64Mi"}}
    values = {
        "image": {
            "tag": os.environ["BOUQUET_KUBERNETES_TAG"],
            "registry": os.environ.get("BOUQUET_KUBERNETES_REGISTRY", ""),
        },
        "hub": {"offline": True},
        "secretsJob": {"resources": {"requests": {"cpu": "10m"}}},
        "superlink": {"resources": small, "state": claim, "results": claim},
        "supernode": {"replicas": NODES, "resources": small},
    }
    (cluster.folder / "values.json").write_text(json.dumps(values))
    failed = request.session.testsfailed
    try:
        yield cluster
    finally:
        if request.session.testsfailed > failed:
            cluster.show()
        cluster.kubectl("delete", "namespace", NAMESPACE)
        for volume in volumes:
            cluster.kubectl("delete", "persistentvolume", volume["metadata"]["name"])


@contextmanager
def forwarded(cluster: Cluster) -> Iterator[Path]:
    """`bouquet connection --kubernetes`, as a user leaves it running; yields its output."""
    log = cluster.folder / "connection.log"
    command = [sys.executable, "-m", "bouquet.host", "connection", "--kubernetes", f"{NAMESPACE}/{RELEASE}"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=cluster.environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        timed(lambda: "is the Control API of" in log.read_text() or process.poll(), "the connection")
        assert process.poll() is None, log.read_text()
        yield log
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130, log.read_text()
        print(log.read_text())


@pytest.fixture(scope="module")
def fleet(cluster: Cluster) -> Iterator[Cluster]:
    """The installed release, with its Control API forwarded."""
    values = ("--values", str(cluster.folder / "values.json"))
    began = time.monotonic()
    cluster.helm("install", RELEASE, str(CHART), *values, "--timeout", f"{PATIENCE:g}s")
    print(f"helm install: {time.monotonic() - began:.1f} s")
    timed(lambda: cluster.is_complete(NODES), "all pods are ready")
    with forwarded(cluster):
        yield cluster


def secrets(cluster: Cluster) -> dict[str, Any]:
    return {s["metadata"]["name"]: s["data"] for s in cluster.get("secrets")["items"] if s["type"] == "Opaque"}


def test_a_run_of_five_rounds_through_the_forwarded_port_trains_each_partition_once(fleet: Cluster) -> None:
    began = time.monotonic()
    fleet.trains(NODES)
    print(f"five rounds: {time.monotonic() - began:.1f} s")
    assert fleet.has_size(NODES)


def test_the_results_are_copied(fleet: Cluster) -> None:
    fleet.bouquet("results", "--kubernetes", f"{NAMESPACE}/{RELEASE}")
    assert list((fleet.folder / "results").glob("*/weights.npy"))


def test_the_charts_own_test_passes(fleet: Cluster) -> None:
    print(fleet.helm("test", RELEASE, "--logs"))


def test_a_pod_of_the_fleet_reaches_the_fleet_api_only(fleet: Cluster) -> None:
    address = fleet.get("pod", f"{PREFIX}-superlink-0")["status"]["podIP"]
    command = ("exec", f"{PREFIX}-supernode-0", "--", "python3", "-c", CONNECT, address)
    assert fleet.kubectl(*command).split() == ["9092"]


def test_a_supernodes_pod_that_is_deleted_during_a_run_returns_as_the_same_node(fleet: Cluster) -> None:
    first = fleet.start(rounds=1)
    assert fleet.end(first) == "finished:completed"
    before = {reply["node"] for reply in fleet.replies(first)}
    run = fleet.start(rounds=4, pause=6)
    name = f"{PREFIX}-supernode-2"
    uid = fleet.pods("supernode")[name]
    fleet.kubectl("delete", "pod", name, "--wait=false")
    timed(lambda: fleet.pods("supernode").get(name, uid) != uid, "the pod of the SuperNode is replaced and ready")
    assert fleet.end(run) == "finished:completed"
    replies = fleet.replies(run)
    print(f"failures named: {[reply['error'] for reply in replies if 'error' in reply]}")
    last = fleet.start(rounds=1)
    assert fleet.end(last) == "finished:completed"
    assert {reply["node"] for reply in fleet.replies(last)} == before
    fleet.trains(NODES)


def test_a_superlinks_pod_that_is_deleted_ends_the_run_and_the_fleet_goes_on(fleet: Cluster) -> None:
    run = fleet.start(rounds=30, pause=2)
    others = fleet.pods("supernode")
    uid = fleet.pods("superlink")[f"{PREFIX}-superlink-0"]
    fleet.kubectl("delete", "pod", f"{PREFIX}-superlink-0", "--wait=false")
    timed(lambda: uid not in (found := fleet.pods("superlink").values()) and found, "the pod of the SuperLink is ready")
    timed(fleet.runs, "the forwarded port answers again")
    assert fleet.end(run) != "finished:completed"
    timed(lambda: fleet.is_complete(NODES), "all SuperNodes are ready")
    fleet.trains(NODES)
    assert fleet.pods("supernode") == others, "no SuperNode was restarted"


def test_scaling_up_and_down_restarts_nothing_and_leaves_no_partition_out(fleet: Cluster) -> None:
    before = {**fleet.pods("superlink"), **fleet.pods("supernode")}
    for nodes in (8, 4):
        fleet.kubectl("scale", f"statefulset/{PREFIX}-supernode", f"--replicas={nodes}")
        timed(partial(fleet.is_complete, nodes), f"{nodes} SuperNodes are ready")
        timed(partial(fleet.has_size, nodes), f"a run sees {nodes} partitions")
        fleet.trains(nodes)
        after = {**fleet.pods("superlink"), **fleet.pods("supernode")}
        assert {name: uid for name, uid in before.items() if name in after}.items() <= after.items()


def test_an_upgrade_keeps_secrets_and_replaces_only_what_it_changes(fleet: Cluster) -> None:
    kept, superlink = secrets(fleet), fleet.pods("superlink")
    values = ("--values", str(fleet.folder / "values.json"), "--set", 'supernode.nodeConfig=site="north"')
    fleet.helm("upgrade", RELEASE, str(CHART), *values, "--timeout", f"{PATIENCE:g}s")
    fleet.kubectl("rollout", "status", f"statefulset/{PREFIX}-supernode", f"--timeout={PATIENCE:g}s")
    timed(lambda: fleet.is_complete(NODES), "all pods are ready after the upgrade")
    assert secrets(fleet) == kept
    assert fleet.pods("superlink") == superlink
    timed(partial(fleet.has_size, NODES), f"a run sees {NODES} partitions")
    fleet.trains(NODES)


def test_a_release_that_is_uninstalled_leaves_claims_and_secrets_and_the_next_one_takes_them(cluster: Cluster) -> None:
    kept = secrets(cluster)
    cluster.helm("uninstall", RELEASE)
    timed(lambda: not cluster.get("pods")["items"], "all pods are gone")
    assert secrets(cluster) == kept
    assert {c["metadata"]["name"] for c in cluster.get("pvc")["items"]} == {f"{PREFIX}-state", f"{PREFIX}-results"}
    cluster.helm("install", RELEASE, str(CHART), "--values", str(cluster.folder / "values.json"))
    timed(lambda: cluster.is_complete(NODES), "all pods are ready again")
    assert secrets(cluster) == kept
    cluster.helm("uninstall", RELEASE)
