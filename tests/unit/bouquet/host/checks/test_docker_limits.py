"""What Docker can limit."""

from typing import Any

import pytest

from bouquet.errors import HostError
from bouquet.host.checks.docker_limits import limits
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.host.docker_answers import docker_info

DEFAULT = HostSettings.read({})


def test_a_docker_that_sets_all_limits_passes() -> None:
    assert limits(docker_info(), DEFAULT) == "Docker sets memory, CPU and process limits"


def test_without_cfs_quota_the_limits_must_be_zero_and_the_error_names_the_settings() -> None:
    docker = docker_info(CpuCfsQuota=False)
    with pytest.raises(HostError, match=r"no CFS quota; .*: SUPERLINK_CPUS=0 SUPERNODE_CPUS=0$"):
        limits(docker, DEFAULT)
    with pytest.raises(HostError, match=r"without that limit: SUPERLINK_CPUS=0$"):
        limits(docker, HostSettings.read({"SUPERNODE_CPUS": "0"}))
    assert limits(docker, HostSettings.read({"SUPERNODE_CPUS": "0", "SUPERLINK_CPUS": "0.0"}))


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({"MemoryLimit": False}, "memory limits (SUPERLINK_MEMORY, SUPERNODE_MEMORY),"),
        ({"PidsLimit": False}, "pids limits (SUPERLINK_PIDS, SUPERNODE_PIDS),"),
        ({"CgroupDriver": "none"}, "memory limits (SUPERLINK_MEMORY, SUPERNODE_MEMORY) and pids limits"),
    ],
)
def test_limits_that_docker_ignores_are_a_warning_that_names_the_settings(answer: dict[str, Any], named: str) -> None:
    message = limits(docker_info(**answer), DEFAULT)
    assert message.startswith(f"WARNING: Docker ignores {named}")
