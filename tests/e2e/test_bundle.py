"""A bundle of a small app, on a Docker that has no images, no volumes and no network.

That Docker is a daemon of the test's own, in a network namespace without a route to anywhere.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import APPS, BOUQUET, COMMAND_SECONDS, PROJECT, TEST_ID, Bouquet, StartFleet
from tests.e2e.docker_host import DockerHost, can_have_hosts

SUPERNODES = 3
APP = "numpy_mean"
OPTIONS = ("--run-config", f"num-server-rounds=2 nodes={SUPERNODES}")


@pytest.fixture(scope="module")
def site(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    """A machine with Docker and without a network."""
    if not can_have_hosts():
        pytest.skip("a second Docker daemon needs root, dockerd, ip and nsenter")
    host = DockerHost(f"bouquet-test-{TEST_ID}", tmp_path_factory.mktemp("site"))
    try:
        host.isolate()
        host.start()
        yield host
    finally:
        host.remove()


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


def test_a_bundle_runs_where_there_is_only_docker(bundle: Path, site: DockerHost, tmp_path: Path) -> None:
    assert site.docker("images", "-q") == ""
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


def test_bouquet_runs_a_bundle_without_a_network(bundle: Path, fleet: Bouquet, site: DockerHost) -> None:
    try:
        done = site(BOUQUET, "run", bundle, *OPTIONS, cwd=PROJECT, environment=fleet.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "numpy_mean {" in done.stdout
        assert f"{SUPERNODES} SuperNodes are healthy" in done.stdout
    finally:
        site(BOUQUET, "down", cwd=PROJECT, environment=fleet.environment)


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
