"""A bundle of a small app, on a Docker that has no images, no volumes and no network.

That Docker is a daemon of the test's own, in a network namespace without a route to anywhere.
"""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import APPS, BOUQUET, COMMAND_SECONDS, PROJECT, TEST_ID, Bouquet, StartFleet, wait_until

SUPERNODES = 3
APP = "numpy_mean"
OPTIONS = ("--run-config", f"num-server-rounds=2 nodes={SUPERNODES}")


@dataclass
class Site:
    """A machine with Docker and without a network."""

    namespace: str
    environment: dict[str, str]

    def __call__(self, *command: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.namespace}", *command],
            cwd=cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )


def output_of(*command: str, **environment: str) -> str:
    return subprocess.check_output(command, text=True, env=os.environ | environment, stderr=subprocess.DEVNULL).strip()


@pytest.fixture(scope="module")
def site(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("dockerd", "ip", "nsenter"))):
        pytest.skip("a second Docker daemon needs root, dockerd, ip and nsenter")
    folder, name = tmp_path_factory.mktemp("site"), f"bouquet-test-{TEST_ID}"
    socket = f"unix://{folder}/docker.sock"
    (folder / "daemon.json").write_text(
        json.dumps({"storage-driver": output_of("docker", "info", "-f", "{{.Driver}}")})
    )
    subprocess.run(["ip", "netns", "add", name], check=True)
    inside = ["nsenter", f"--net=/run/netns/{name}"]
    subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
    options = {"config-file": "daemon.json", "data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    with (folder / "log").open("wb") as log:
        command = [f"--{option}={folder / value}" for option, value in options.items()]
        daemon = subprocess.Popen([*inside, "dockerd", *command, "-H", socket], stdout=log, stderr=log)

    def answers() -> bool:
        return subprocess.run(["docker", "-H", socket, "version"], capture_output=True).returncode == 0

    try:
        wait_until(answers, "the second Docker daemon does not answer", 60, (folder / "log").read_text)
        yield Site(name, os.environ | {"DOCKER_HOST": socket})
    finally:
        with suppress(subprocess.CalledProcessError):
            for container in output_of("docker", "-H", socket, "ps", "-aq").split():
                subprocess.run(["docker", "-H", socket, "rm", "--force", "--volumes", container], capture_output=True)
        daemon.terminate()
        daemon.wait(60)
        shutil.rmtree(folder / "data", ignore_errors=True)
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture(scope="module")
def fleet(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    folder = tmp_path_factory.mktemp("fleet")
    with start_fleet("containers", folder, up=False, SUPERNODES=str(SUPERNODES)) as found:
        yield found


@pytest.fixture(scope="module")
def bundle(fleet: Bouquet) -> Path:
    path = fleet.folder / "numpy.bundle.tar"
    command: list[str | Path] = [BOUQUET, "bundle", APPS / APP, "--output", path]
    done = subprocess.run(
        command, cwd=PROJECT, env=fleet.environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def test_a_bundle_runs_where_there_is_only_docker(bundle: Path, site: Site, tmp_path: Path) -> None:
    assert output_of("docker", "images", "-q", DOCKER_HOST=site.environment["DOCKER_HOST"]) == ""
    assert "default" not in site("ip", "route", cwd=tmp_path).stdout
    with tarfile.open(bundle) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / "numpy-mean-1.0.0"
    try:
        done = site("./run", *OPTIONS, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "numpy_mean {" in done.stdout
        again = site("./run", "--run-config", "num-server-rounds=0", cwd=folder)
        assert "loading the images" not in again.stdout
        rejected = site("./run", "--run-config", "rounds=1", cwd=folder)
        assert rejected.returncode == 2
        assert "the app has no setting rounds" in rejected.stdout
    finally:
        site("docker", "compose", "down", "--volumes", "--rmi", "all", cwd=folder)


def test_bouquet_runs_a_bundle_without_a_network(bundle: Path, fleet: Bouquet, site: Site) -> None:
    with_fleet = Site(site.namespace, fleet.environment | {"DOCKER_HOST": site.environment["DOCKER_HOST"]})
    try:
        done = with_fleet(BOUQUET, "run", bundle, *OPTIONS, cwd=PROJECT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "numpy_mean {" in done.stdout
        assert f"{SUPERNODES} SuperNodes are healthy" in done.stdout
    finally:
        with_fleet(BOUQUET, "down", cwd=PROJECT)


def test_a_damaged_bundle_is_refused_before_anything_starts(bundle: Path, fleet: Bouquet, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tar"
    shutil.copyfile(bundle, damaged)
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 2)
        file.write(b"damage")
    done = subprocess.run([BOUQUET, "run", damaged], cwd=PROJECT, env=fleet.environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"bouquet: error: {damaged}: the bundle is damaged, the checksum of images.tar.gz is wrong; copy the file "
        "again, or write the bundle again: bouquet bundle"
    ]
    assert not fleet.compose.ps(all=True)
