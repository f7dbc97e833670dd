"""The disks that the fleet writes to."""

from collections import namedtuple
from pathlib import Path

import pytest

from bouquet.errors import HostError
from bouquet.host.checks import disk_space
from bouquet.host.checks.disk_space import GIB, Use, by_disk, container_uses, disk, process_uses, unseen_disk
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install
from tests.unit.bouquet.host.docker_answers import docker_info

usage = namedtuple("usage", "total used free")


@pytest.fixture
def settings(tmp_path: Path) -> HostSettings:
    folders = {name: str(tmp_path / name.lower()) for name in ("RESULTS", "FLWR_HOME", "BOUQUET_HOME")}
    return HostSettings.read(folders)


def free(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, int(gib * GIB)))


def test_the_images_count_only_until_docker_has_them(settings: HostSettings, tmp_path: Path, install: Install) -> None:
    install(docker="exit 1")
    [docker] = [use for use in container_uses(settings, docker_info(tmp_path)) if use.folder == tmp_path]
    assert docker.name == f"Docker's images and volumes ({tmp_path})"
    install(docker="exit 0")
    [less] = [use for use in container_uses(settings, docker_info(tmp_path)) if use.folder == tmp_path]
    assert less.name == f"Docker's volumes ({tmp_path})"
    assert less.needed_gib < docker.needed_gib


def test_a_docker_elsewhere_is_not_checked_and_says_so(settings: HostSettings, tmp_path: Path) -> None:
    elsewhere = docker_info(tmp_path, Name="docker-desktop")
    assert tmp_path not in [use.folder for use in container_uses(settings, elsewhere)]
    assert unseen_disk(elsewhere).startswith(f"Docker's folder {tmp_path} is not on this machine")
    assert unseen_disk(docker_info(tmp_path)) == ""


def test_processes_write_to_their_home_and_to_the_hubs_cache(
    settings: HostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = {use.folder for use in process_uses(settings)}
    assert folders == {settings.results, settings.flower_home, settings.home, tmp_path / "cache" / "huggingface"}


def test_folders_on_one_disk_are_one_check_with_the_sum_of_their_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [group] = by_disk([Use("a", tmp_path / "not" / "there", 1.0), Use("b", tmp_path, 2.0)])
    free(monkeypatch, 3.5)
    assert disk(group) == "3.5 GiB free, 3.0 GiB needed for a, b"
    free(monkeypatch, 2.5)
    with pytest.raises(HostError, match=r"disk: 2.5 GiB free, 3.0 GiB needed for a, b; free some space, or name"):
        disk(group)


def test_folders_on_two_disks_are_two_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = by_disk([Use("a", tmp_path, 1.0), Use("b", Path("/proc"), 1.0), Use("c", tmp_path, 1.0)])
    assert [[use.name for use in group] for group in groups] == [["a", "c"], ["b"]]


def test_a_full_disk_of_docker_names_the_command_that_frees_space(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0.1)
    with pytest.raises(HostError, match="docker system prune"):
        disk([Use("Docker's volumes (/)", Path("/"), disk_space.VOLUMES_GIB)])
