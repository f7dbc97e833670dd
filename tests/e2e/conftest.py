"""Fleets for the end-to-end tests: started by the product's own commands, always taken down, logs shown on failure.

All names in Docker (Compose projects, image tags, networks) start with `bouquet-test-<id>`, where the id is
BOUQUET_TEST_ID or this process's pid, so that other containers on the machine do not matter.
"""

import ipaddress
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from python_on_whales import DockerClient
from python_on_whales.components.compose.cli_wrapper import ComposeCLI
from python_on_whales.exceptions import DockerException

from bouquet.host.submission import QUIET, STARTED
from bouquet.polling import poll_until

T = TypeVar("T")

PROJECT = Path(__file__).parents[2]
APPS = PROJECT / "tests" / "apps"
BIN = Path(sys.executable).parent
BOUQUET = BIN / "bouquet"
FLWR = BIN / "flwr"
CONNECTION = "local-deployment"
SUPERNODES = 10
# A round of ten nodes on one core takes minutes where each message starts its own process.
COMMAND_SECONDS = 1200
RUN_SECONDS = 600
TEST_ID = os.environ.get("BOUQUET_TEST_ID") or str(os.getpid())
TAG = f"test-{TEST_ID}"

_numbers = itertools.count()


# SIGTERM ends the session as Ctrl-C does, so that fixtures take their fleets down.
signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the images that this session tagged; their layers stay in the build cache."""
    if docker_answers():
        mine = [
            option for role in ("superlink", "supernode") for option in ("--filter", f"reference=bouquet-{role}:{TAG}*")
        ]
        listed = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *mine]
        images = subprocess.run(listed, capture_output=True, text=True).stdout.split()
        subprocess.run(["docker", "image", "rm", "--force", *images], capture_output=True)


def docker_answers() -> bool:
    return (
        shutil.which("docker") is not None
        and subprocess.run(["docker", "version"], capture_output=True).returncode == 0
    )


@pytest.fixture(scope="session")
def docker() -> None:
    """Docker, or a skip; in CI a failure."""
    if not docker_answers():
        if os.environ.get("CI"):
            pytest.fail("no Docker daemon answers, and CI must test the containers")
        pytest.skip("no Docker daemon answers")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(look: Callable[[], T], what: str, seconds: float, details: Callable[[], object] = lambda: "") -> T:
    """Return the first true answer of `look`; fail with `what` and `details` if there is none within `seconds`."""
    found = poll_until(look, seconds, 0.1)
    assert found, f"{what}: not within {seconds:g} s {details()}"
    return found


def run_id(output: str) -> str:
    """The id of the run that `flwr run` or `bouquet run` started."""
    match = STARTED.search(output)
    assert match is not None, output
    return match[1]


def printed_json(app: str, output: str) -> list[dict[str, Any]]:
    """The JSON objects that the ServerApp of a test app printed, each after the app's name."""
    return [json.loads(line) for line in re.findall(rf"^{app} (\{{.*\}})$", output, re.MULTILINE)]


@dataclass
class Bouquet:
    """The product's commands, on the test's own fleet: own ports, own Flower home, own results.

    `checkout` is the checkout that they belong to; without a value, this one.
    """

    kind: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    checkout: Path = PROJECT

    def __post_init__(self) -> None:
        self.environment = {
            **{
                name: value for name, value in os.environ.items() if name not in ("DATASET", "RUN_CONFIG", "SUPERNODES")
            },
            "FLEET": self.kind,
            "SUPERNODES": str(SUPERNODES),
            "CONTROL_PORT": str(free_port()),
            "FLEET_PORT": str(free_port()),
            "FLWR_HOME": str(self.folder / "flwr"),
            "BOUQUET_HOME": str(self.folder / "bouquet"),
            "RESULTS": str(self.folder / "results"),
            "COMPOSE_PROJECT_NAME": f"bouquet-test-{TEST_ID}-{next(_numbers)}",
            "TAG": TAG,
            "HF_HUB_OFFLINE": "1",
            "GPUS": "none",
            "UP_TIMEOUT": "600",  # a busy machine is no failure
            **({} if self.checkout == PROJECT else {"PYTHONPATH": str(self.checkout / "deploy")}),
            **self.environment,
        }

    def __call__(self, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run a `bouquet` command with these settings."""
        return subprocess.run(
            [BOUQUET, *words],
            cwd=self.checkout,
            env=self.environment | settings,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
        )

    def try_flwr(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a `flwr` command on the fleet; it fails while the SuperLink is away."""
        return subprocess.run(
            [FLWR, *arguments],
            env=self.environment | QUIET,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
        )

    def flwr(self, *arguments: str) -> str:
        """Run a `flwr` command on the fleet, which must succeed; return what it printed."""
        done = self.try_flwr(*arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def submit(self, app: str | Path, *options: str, **run_config: Any) -> str:
        """Submit a run of a test app by `flwr run`; return what that printed. `--stream` waits for the run's end."""
        config = " ".join(f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in run_config.items())
        return self.flwr("run", str(APPS / app), CONNECTION, *(("--run-config", config) if config else ()), *options)

    def runs(self) -> dict[str, dict[str, Any]]:
        """What the SuperLink says of each run, by id; nothing while it is away."""
        try:
            listed = json.loads(self.try_flwr("ls", CONNECTION, "--format", "json").stdout)["runs"]
        except (ValueError, LookupError):  # `flwr` has its own way to say that nobody answers
            return {}
        return {str(row["run-id"]): row for row in listed}

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def project(self) -> str:
        return self.environment["COMPOSE_PROJECT_NAME"]

    @property
    def compose(self) -> ComposeCLI:
        """This fleet's Compose project."""
        files: list[str | Path] = [self.checkout / "docker-compose.yml"]
        return DockerClient(compose_files=files, compose_project_name=self.project).compose

    def process_log(self, name: str) -> str:
        """The log of one member of a fleet of processes."""
        return (self.folder / "bouquet" / "processes" / "logs" / f"{name}.log").read_text(errors="replace")

    def serving(self) -> dict[int, int]:
        """By partition-id, the pid that serves it in a fleet of processes."""
        found = {}
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("BOUQUET_HOME") == self.environment["BOUQUET_HOME"]
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if ours and (match := re.search(r"bouquet\.node\.serve_supernode .*partition-id=(\d+)", words)):
                found[int(match[1])] = process.pid
        return found

    def nodes(self) -> dict[str, dict[str, str]]:
        """What `bouquet nodes` says of each node, by name."""
        nodes = self("nodes")
        assert nodes.returncode == 0, nodes.stderr
        heading, *rows = (re.split(r"\s{2,}", line) for line in nodes.stdout.splitlines())
        return {row[0]: dict(zip(heading, row, strict=True)) for row in rows}

    def show_logs(self) -> None:
        if self.kind == "containers":
            print(self.compose.logs(tail="60"))
        else:
            for log in sorted((self.folder / "bouquet" / "processes" / "logs").glob("*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-60:]))

    def tear_down(self) -> None:
        self("down")
        if self.kind == "containers":
            try:
                self.compose.down(volumes=True, remove_orphans=True, timeout=10)
            except DockerException:  # Docker 20.10 at times keeps a network whose containers are gone
                assert not self.compose.ps(all=True)


def copy_checkout(folder: Path) -> Path:
    """Copy what git knows of this checkout, and what is new in it, into a folder; return the folder."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=PROJECT, text=True)
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name, follow_symlinks=False)
    return folder


def gateway() -> str:
    """This machine's address as seen from a container: the published port lies there."""
    (config,) = json.loads(subprocess.check_output(["docker", "network", "inspect", "bridge"]))[0]["IPAM"]["Config"]
    return str(config.get("Gateway") or next(ipaddress.ip_network(config["Subnet"]).hosts()))


@contextmanager
def another_network(name: str) -> Iterator[str]:
    """A network that has nothing of a fleet's; the containers and volumes whose names begin with it go, too."""
    client = DockerClient()
    client.network.create(name)
    try:
        yield name
    finally:
        for node in client.container.list(all=True, filters=[("name", f"{name}-node")]):
            print(f"--- {node.name}\n{client.container.logs(node, tail=40)}")
            client.container.remove(node, force=True)
        for volume in client.volume.list(filters=[("name", f"{name}-node")]):
            client.volume.remove(volume)
        with suppress(Exception):
            client.network.remove(name)


def start_elsewhere(join_command: str, network: str, *options: str) -> None:
    """Run what `bouquet join-command` has printed, as if on another machine: in a network of its own."""
    run = " ".join(("docker run --detach --network", network, *options))
    command = join_command.replace("docker run --detach", run)
    started = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=RUN_SECONDS)
    assert started.returncode == 0, started.stderr


StartFleet = Callable[..., AbstractContextManager[Bouquet]]


@pytest.fixture(scope="session")
def start_fleet(request: pytest.FixtureRequest) -> StartFleet:
    """Return a context manager that brings a fleet up and, whatever happens, takes it down.

    `start_fleet(kind, folder, up=True, checkout=PROJECT, **settings)`. It shows the logs when a test failed meanwhile.
    """

    @contextmanager
    def start(
        kind: str, folder: Path, *, up: bool = True, checkout: Path = PROJECT, **settings: str
    ) -> Iterator[Bouquet]:
        if kind == "containers":
            request.getfixturevalue("docker")
        fleet = Bouquet(kind, folder, settings, checkout)
        failed = request.session.testsfailed
        try:
            if up:
                done = fleet("up")
                assert done.returncode == 0, done.stdout + done.stderr
            yield fleet
        except BaseException:
            failed = -1
            raise
        finally:
            if request.session.testsfailed > failed:
                with suppress(Exception):
                    fleet.show_logs()
            fleet.tear_down()

    return start


@pytest.fixture(scope="module", params=["processes", "containers"])
def bouquet(
    request: pytest.FixtureRequest, start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bouquet]:
    """A fleet that is not up yet, as local processes and as containers: the same tests for both."""
    with start_fleet(request.param, tmp_path_factory.mktemp(request.param), up=False) as fleet:
        yield fleet
