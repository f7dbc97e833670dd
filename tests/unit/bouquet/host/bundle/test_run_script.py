"""The script in a bundle, with a `docker` that only answers."""

import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.unit.bouquet.host.bundle.conftest import FakeDocker, WriteBundle


@pytest.fixture
def site(write_bundle: WriteBundle, tmp_path: Path) -> Path:
    with tarfile.open(write_bundle()) as tar:
        tar.extractall(tmp_path / "a site", filter="data")
    return tmp_path / "a site" / "numpy-mean-1.0.0"


def run(site: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([site / "run", *arguments], capture_output=True, text=True, timeout=60)


def test_the_app_runs_and_its_results_are_copied(docker: FakeDocker, site: Path) -> None:
    done = run(site, "--run-config", "a=1 b=2")
    assert done.returncode == 0, done.stderr
    assert "the log\n" in done.stdout
    assert "results of run 7: results/7" in done.stdout
    assert (docker.folder / "submitted").read_bytes() == b"the app"
    assert next(line for line in docker.asked() if "submit" in line).endswith("submit --run-config a=1 b=2")
    assert (site / "results" / "7").is_dir()


def test_images_are_loaded_once(docker: FakeDocker, site: Path) -> None:
    run(site)
    run(site)
    assert [line for line in docker.asked() if line.startswith("load")] == ["load --quiet --input images.tar.gz"]


def test_nothing_is_built(docker: FakeDocker, site: Path) -> None:
    run(site)
    assert [line for line in docker.asked() if line.startswith("compose up")] == [
        "compose up --detach --no-build --wait --wait-timeout 300"
    ]


def test_a_failed_run_has_the_exit_code_of_its_outcome_and_its_results(docker: FakeDocker, site: Path) -> None:
    docker.set(outcome=5)
    done = run(site)
    assert done.returncode == 5
    assert (site / "results" / "7").is_dir()


def test_a_fleet_that_does_not_start_is_an_error(docker: FakeDocker, site: Path) -> None:
    docker.set(up=1)
    done = run(site)
    assert done.returncode == 4
    assert "the fleet is not healthy" in done.stderr
    assert not (docker.folder / "submitted").exists()


@pytest.mark.parametrize("name", ["app.fab", "docker-compose.yml", "bundle.env"])
def test_a_damaged_or_missing_file_is_named_in_one_line(docker: FakeDocker, site: Path, name: str) -> None:
    (site / name).write_bytes(b"damaged")
    damaged = run(site)
    (site / name).unlink()
    missing = run(site)
    for done in (damaged, missing):
        assert done.returncode == 3
        assert done.stderr.splitlines() == [
            f"bouquet: error: the bundle is damaged or incomplete: {name}; copy the bundle again, or extract it again"
        ]
    assert docker.asked() == [line for line in docker.asked() if not line.startswith(("load", "compose"))]


def test_checksums_that_cannot_be_read_are_an_error(docker: FakeDocker, site: Path) -> None:
    (site / "SHA256SUMS").write_text("")
    done = run(site)
    assert done.returncode == 3
    assert "SHA256SUMS cannot be checked" in done.stderr


@pytest.mark.parametrize("name", ["SHA256SUMS", ".env"])
def test_a_bundle_without_its_checksums_or_settings_is_incomplete(docker: FakeDocker, site: Path, name: str) -> None:
    (site / name).unlink()
    done = run(site)
    assert done.returncode == 3
    assert f"the bundle is incomplete: {name} is missing" in done.stderr


def test_edited_settings_are_no_damage(docker: FakeDocker, site: Path) -> None:
    with (site / ".env").open("a") as settings:
        settings.write("SUPERNODES=4\n")
    assert run(site).returncode == 0


def test_images_for_another_platform_are_refused(docker: FakeDocker, site: Path) -> None:
    docker.set(platform="linux/arm64")
    done = run(site)
    assert done.returncode == 3
    assert "the images are for linux/amd64, this Docker runs linux/arm64" in done.stderr


def test_a_docker_that_does_not_answer_is_an_error_with_its_reason(docker: FakeDocker, site: Path) -> None:
    docker.set(docker='#!/bin/sh\necho "permission denied" >&2\nexit 1')
    done = run(site)
    assert done.returncode == 3
    assert "Docker does not answer (permission denied); start Docker" in done.stderr
