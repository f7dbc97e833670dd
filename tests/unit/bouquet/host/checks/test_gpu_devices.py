"""What the nodes compute on."""

from bouquet.gpu import nvidia
from bouquet.host.checks.gpu_devices import gpus
from bouquet.host.doctor import run_checks
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install


def test_gpus_that_are_too_small_fail_and_no_gpus_pass(install: Install) -> None:
    install()
    assert "on the CPU (GPUS=none)" in gpus(HostSettings.read({"GPUS": "none"}), nvidia.for_containers)
    settings = HostSettings.read({"GPUS": "0:2GiB"})
    [result] = run_checks([("gpus", lambda: gpus(settings, nvidia.for_containers))])
    assert (result.ok, "too many for the GPUs" in result.message) == (False, True)
