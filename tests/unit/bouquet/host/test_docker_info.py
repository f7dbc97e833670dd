"""What Docker's daemon says about itself."""

import pytest

from bouquet.errors import HostError
from bouquet.host.docker_info import read_docker_info
from tests.unit.bouquet.conftest import Install
from tests.unit.bouquet.host.docker_answers import docker_info, docker_script


def test_the_daemon_of_this_machine_limits_everything(install: Install) -> None:
    install(docker=docker_script("/mnt/docker"))
    info = read_docker_info()
    assert (str(info.root), info.is_here, info.maps_uids, info.has_selinux) == ("/mnt/docker", True, False, False)
    assert (info.limits_cpus, info.ignored_limits) == (True, ())


def test_a_daemon_on_another_machine_or_in_docker_desktop_is_not_here() -> None:
    assert not docker_info(Name="docker-desktop").is_here
    assert not docker_info(KernelVersion="5.15.49-linuxkit").is_here


@pytest.mark.parametrize("option", ["name=rootless", "name=userns"])
def test_rootless_docker_and_userns_remap_map_uids(option: str) -> None:
    assert docker_info(SecurityOptions=["name=seccomp,profile=default", option]).maps_uids


def test_rootless_docker_without_cgroups_ignores_all_limits() -> None:
    assert docker_info(CgroupDriver="none").ignored_limits == ("memory", "pids")


@pytest.mark.parametrize(
    "script",
    [
        "echo 'Cannot connect to the Docker daemon' >&2; exit 1",
        'echo \'{"ServerVersion": "", "ServerErrors": ["Cannot connect to the Docker daemon"]}\'',
    ],
)
def test_a_daemon_that_does_not_answer_is_one_line(install: Install, script: str) -> None:
    install(docker=script)
    with pytest.raises(HostError, match=r"^Docker: Cannot connect to the Docker daemon; start Docker"):
        read_docker_info()
