"""Finding GPUs: nvidia-smi's output, Docker's runtime, and what happens if either is missing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bouquet import probing
from bouquet.errors import HostError, SettingError
from bouquet.gpu import nvidia
from bouquet.gpu.plan import Device, Share
from bouquet.host.checks.gpu_devices import SharesOf
from bouquet.settings.gpu_settings import GpuSettings
from tests.unit.bouquet.conftest import Install

QUERIED = """\
0, NVIDIA A100-SXM4-40GB, 40960, [N/A], Disabled
1, NVIDIA A100-SXM4-40GB, 40960, 500, Enabled
2, NVIDIA L4, 23034, 470, [N/A]
"""
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-8a4d2a1c-0000-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 2: NVIDIA L4 (UUID: GPU-77777777-d33d-2b2c-524d-9e3d8d2b8a77)
"""
FOUND = (
    Device("0", 40960, "NVIDIA A100-SXM4-40GB"),
    Device("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", 19073, "MIG 3g.20gb of GPU 1"),
    Device("MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", 4768, "MIG 1g.5gb+me of GPU 1"),
    Device("2", 22564, "NVIDIA L4"),
)


@pytest.fixture(autouse=True)
def clear_cache() -> Iterator[None]:
    nvidia.find.cache_clear()
    yield
    nvidia.find.cache_clear()


def smi(tmp_path: Path) -> str:
    """Return the body of a script that answers as nvidia-smi."""
    (tmp_path / "queried").write_text(QUERIED)
    (tmp_path / "listed").write_text(LISTED)
    cat = 'while read -r line || [ -n "$line" ]; do echo "$line"; done <'
    return f'if [ "$1" = -L ]; then IFS=; {cat} "{tmp_path}/listed"; else {cat} "{tmp_path}/queried"; fi'


def docker(runtimes: str) -> str:
    return f"echo '{runtimes}'"


def test_a_gpu_in_mig_mode_counts_by_its_slices() -> None:
    assert nvidia.parse(QUERIED, LISTED) == FOUND


def test_a_gpu_has_the_memory_that_cuda_shows_not_what_the_driver_reserves() -> None:
    # The output of driver 580.159 with one H100, of which PyTorch reports 81079 MiB.
    queried = "0, NVIDIA H100 80GB HBM3, 81559, 480, Disabled\n"
    listed = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-00000000-0000-0000-0000-000000000000)\n"
    assert nvidia.parse(queried, listed) == (Device("0", 81079, "NVIDIA H100 80GB HBM3"),)


def test_the_output_of_nvidia_smi_is_cached(install: Install, tmp_path: Path) -> None:
    install(**{"nvidia-smi": smi(tmp_path)})
    assert nvidia.find() == (FOUND, "found by nvidia-smi")
    nvidia.find()
    assert (tmp_path / "calls").read_text().count("nvidia-smi") == 2


def test_without_nvidia_smi_there_are_no_gpus_and_the_reason_is_given(install: Install) -> None:
    install()
    assert nvidia.shares(GpuSettings.read({}), 10) == ((), "nvidia-smi is not installed")


def test_a_driver_error_is_quoted(install: Install) -> None:
    install(**{"nvidia-smi": "echo 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9"})
    devices, why = nvidia.find()
    assert devices == ()
    assert why == "nvidia-smi finds none: NVIDIA-SMI has failed because it could not talk to the driver."


@pytest.mark.parametrize("plan", [nvidia.shares, nvidia.for_containers])
def test_an_nvidia_smi_that_hangs_is_an_error_that_names_the_cpu_as_the_way_out(
    install: Install, monkeypatch: pytest.MonkeyPatch, plan: SharesOf
) -> None:
    monkeypatch.setattr(probing, "PROBE_TIMEOUT", 0.2)
    install(**{"nvidia-smi": "exec /bin/sleep 60"})
    with pytest.raises(HostError, match="^`nvidia-smi --query-gpu` does not answer within .*GPUS=none$"):
        plan(GpuSettings.read({}), 10)
    assert plan(GpuSettings.read({"GPUS": "none"}), 10) == ((), "GPUS=none")


def test_a_gpu_in_mig_mode_without_slices_does_not_count_and_the_reason_is_given(install: Install) -> None:
    install(**{"nvidia-smi": '[ "$1" = -L ] || echo "0, NVIDIA H100, 81559, 480, Enabled"'})
    assert nvidia.find() == ((), "nvidia-smi finds none: MIG is on, but has no instances")


def test_a_gpu_without_reported_memory_must_be_listed_by_the_user() -> None:
    with pytest.raises(
        HostError, match=r"GPU 0 \(NVIDIA GB10\).* as \[N/A\]; list the GPUs with their memory, as in GPUS=0:"
    ):
        nvidia.parse("0, NVIDIA GB10, [N/A], [N/A], [N/A]\n", "")


def test_gpus_are_not_used_if_the_user_chose_the_cpu(install: Install, tmp_path: Path) -> None:
    install(**{"nvidia-smi": smi(tmp_path)})
    assert nvidia.shares(GpuSettings.read({"GPUS": "none"}), 10) == ((), "GPUS=none")


def test_a_list_set_by_the_user_needs_no_nvidia_smi(install: Install) -> None:
    install()
    shares, why = nvidia.shares(GpuSettings.read({"GPUS": "0:24GiB,1:24GiB"}), 2)
    assert shares == (Share(Device("0", 24576), None), Share(Device("1", 24576), None))
    assert why == "set by GPUS"


def test_each_replica_computes_its_own_share(install: Install) -> None:
    install()
    settings = GpuSettings.read({"GPUS": "0:24GiB,1:24GiB", "EXECUTOR_WORKERS": "1"})
    found = [nvidia.share(settings, 3, partition_id)[0] for partition_id in range(3)]
    assert tuple(found) == nvidia.shares(settings, 3)[0]


def test_a_share_planned_for_more_nodes_stays_while_the_fleet_grows(install: Install) -> None:
    install()
    settings = GpuSettings.read({"GPUS": "0:80GiB", "GPU_MEMORY": "1/14"})
    ten, fourteen = (nvidia.shares(settings, supernodes)[0] for supernodes in (10, 14))
    assert ten == fourteen[:10]
    with pytest.raises(
        SettingError, match=r"GPU_MEMORY=1/14: too few parts for 15 SuperNodes; plan for all of them: GPU_MEMORY=1/15"
    ):
        nvidia.shares(settings, 15)


def test_a_nodes_own_device_takes_precedence_over_the_plan() -> None:
    environment = {"GPUS": "0:24GiB", "GPU": "1", "GPU_MEMORY": "4GiB"}
    assert nvidia.share(GpuSettings.read(environment), 10, 3) == (Share(Device("1", 0), 4096), "set by GPU")
    assert nvidia.share(GpuSettings.read(environment | {"GPU": "none"}), 10, 3)[0] is None


@pytest.mark.parametrize(
    ("runtimes", "has"),
    [('{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}', True), ('{"runc":{}}', False)],
)
def test_docker_info_shows_whether_the_runtime_is_installed(install: Install, runtimes: str, has: bool) -> None:
    install(docker=docker(runtimes))
    assert nvidia.docker_runtime() is has


def test_without_the_runtime_containers_compute_on_the_cpu_and_the_reason_is_given(
    install: Install, tmp_path: Path
) -> None:
    install(**{"nvidia-smi": smi(tmp_path)}, docker=docker('{"runc":{}}'))
    shares, why = nvidia.for_containers(GpuSettings.read({}), 10)
    assert shares == ()
    assert why.startswith("there are GPUs, but Docker has no NVIDIA runtime; to use them, install")


def test_gpus_that_the_user_listed_are_not_silently_left_out(install: Install) -> None:
    install(docker=docker('{"runc":{}}'))
    with pytest.raises(SettingError, match=r"GPUS=0:24576MiB: Docker has no NVIDIA runtime; install .*GPUS=none"):
        nvidia.for_containers(GpuSettings.read({"GPUS": "0:24GiB"}), 2)


ONE = (
    'echo "0, NVIDIA L4, 23034, 0, [N/A]"',
    'echo "GPU 0: NVIDIA L4 (UUID: GPU-77777777-d33d-2b2c-524d-9e3d8d2b8a77)"',
)


def one_gpu() -> str:
    return f'if [ "$1" = -L ]; then {ONE[1]}; else {ONE[0]}; fi'


def test_a_device_that_an_engine_has_assigned_is_not_divided(install: Install) -> None:
    install(**{"nvidia-smi": one_gpu()})
    share, why = nvidia.share(GpuSettings.read({"GPUS": "assigned"}), supernodes=1000, partition_id=999)
    assert share == Share(Device("0", 23034, "NVIDIA L4"), None)
    assert why == "assigned to this node alone"


def test_all_devices_that_an_engine_has_assigned_stay_visible(install: Install, tmp_path: Path) -> None:
    install(**{"nvidia-smi": smi(tmp_path)})
    share, _ = nvidia.share(GpuSettings.read({"GPUS": "assigned"}), supernodes=5, partition_id=0)
    assert share is not None
    assert share.device.id.split(",") == [device.id for device in FOUND]


def test_an_assigned_device_that_is_shared_by_time_slicing_has_the_limit_of_gpu_memory(install: Install) -> None:
    install(**{"nvidia-smi": one_gpu()})
    share, _ = nvidia.share(GpuSettings.read({"GPUS": "assigned", "GPU_MEMORY": "4GiB"}), 5, 4)
    assert share is not None
    assert share.limit_mib == 4096


def test_an_assigned_device_that_nvidia_smi_does_not_find_is_an_error(install: Install) -> None:
    install()
    with pytest.raises(HostError, match="a GPU is assigned to this node, but nvidia-smi is not installed"):
        nvidia.share(GpuSettings.read({"GPUS": "assigned"}), 5, 0)


def test_a_host_refuses_devices_that_only_an_engine_assigns(install: Install) -> None:
    install(**{"nvidia-smi": one_gpu()})
    with pytest.raises(SettingError, match="GPUS=assigned: only an engine"):
        nvidia.shares(GpuSettings.read({"GPUS": "assigned"}), 5)
