"""Settings of a fleet in a Docker Swarm, and the GPU that Swarm assigns."""

import pytest

from bouquet.errors import SettingError
from bouquet.settings.gpu_settings import SWARM_GPU, GpuSettings
from bouquet.settings.swarm_settings import SwarmSettings


def test_hosts_are_separated_by_spaces_or_commas() -> None:
    read = SwarmSettings.read({"SWARM_HOSTS": "ssh://a, ssh://b unix:///c", "SWARM_REGISTRY": "example.org/team/"})
    assert read == SwarmSettings(("ssh://a", "ssh://b", "unix:///c"), "example.org/team")


def test_a_host_without_a_scheme_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(SettingError, match="SWARM_HOSTS=host-2: not a Docker endpoint; .*ssh://host-2"):
        SwarmSettings.read({"SWARM_HOSTS": "host-2"})


def test_a_node_computes_on_the_gpu_that_swarm_assigned_to_it() -> None:
    device = GpuSettings.read({SWARM_GPU: "GPU-8f3a"}).device
    assert device is not None
    assert (device.id, device.memory_mib) == ("GPU-8f3a", 0)


def test_the_users_word_wins_over_the_gpu_that_swarm_assigned() -> None:
    device = GpuSettings.read({SWARM_GPU: "GPU-8f3a", "GPU": "1"}).device
    assert device is not None
    assert device.id == "1"
    assert GpuSettings.read({SWARM_GPU: "GPU-8f3a", "GPU": "none"}).devices == ()
