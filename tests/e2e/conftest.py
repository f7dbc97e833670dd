"""Fleets for the end-to-end tests: started by the product's own commands, always taken down, logs shown on failure."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from python_on_whales import DockerClient
from python_on_whales.components.compose.cli_wrapper import ComposeCLI
from python_on_whales.exceptions import DockerException

PROJECT = Path(__file__).parents[2]
BOUQUET = Path(sys.executable).with_name("bouquet")
SUPERNODES = 10
# A round of ten nodes on one core takes minutes where each message starts its own process.
COMMAND_SECONDS = 1200

_failed = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if outcome.get_result().failed:  # type: ignore[attr-defined]
        item.session.stash[_failed] = True


def docker_answers() -> bool:
    return (
        shutil.which("docker") is not None
        and subprocess.run(["docker", "version"], capture_output=True).returncode == 0
    )


@pytest.fixture(scope="session")
def docker() -> None:
    """Docker, or a skip; under CI a failure."""
    if not docker_answers():
        if os.environ.get("CI"):
            pytest.fail("no Docker daemon answers, and CI must test the containers")
        pytest.skip("no Docker daemon answers")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Bouquet:
    """The product's commands, on a fleet of the test's own: own ports, own Flower home, own results."""

    kind: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

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
            "COMPOSE_PROJECT_NAME": f"bouquet-test-{os.getpid()}",
            "HF_HUB_OFFLINE": "1",
            "GPUS": "none",
            "UP_TIMEOUT": "600",  # a busy machine is no failure
            **self.environment,
        }

    def __call__(self, command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run `bouquet <command>` with these settings."""
        return subprocess.run(
            [BOUQUET, command],
            cwd=PROJECT,
            env=self.environment | settings,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
        )

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def compose(self) -> ComposeCLI:
        """This fleet's Compose project."""
        return DockerClient(
            compose_files=[PROJECT / "docker-compose.yml"],
            compose_project_name=self.environment["COMPOSE_PROJECT_NAME"],
        ).compose

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


@pytest.fixture(scope="module", params=["processes", "containers"])
def bouquet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """A fleet, as local processes and as containers: the same tests for both."""
    if request.param == "containers":
        request.getfixturevalue("docker")
    fleet = Bouquet(request.param, tmp_path_factory.mktemp(request.param))
    request.session.stash[_failed] = False
    try:
        yield fleet
    finally:
        if request.session.stash[_failed]:
            fleet.show_logs()
        fleet.tear_down()
