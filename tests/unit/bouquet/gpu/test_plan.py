"""The GPU plan: every node gets its share; a plan that does not fit is refused with the arithmetic."""

import re

import pytest

from bouquet.errors import SettingError
from bouquet.gpu import plan as gpu
from bouquet.gpu.plan import CONTEXT_MIB, MIN_MIB, Device, Share, plan, spread

GIB = 1024
L4 = [Device(str(index), 24 * GIB, "NVIDIA L4") for index in range(8)]


def devices_of(shares: tuple[Share, ...]) -> list[str]:
    return [share.device.id for share in shares]


def test_a_node_for_each_of_two_devices_has_it_whole() -> None:
    assert plan(L4[:2], 2, workers=2) == (Share(L4[0], None), Share(L4[1], None))


def test_eight_devices_and_two_nodes_leave_six_devices_alone() -> None:
    assert devices_of(plan(L4, 2, workers=2)) == ["0", "1"]


def test_ten_nodes_on_eight_devices_share_two_of_them() -> None:
    shares = plan(L4, 10, workers=2)
    assert devices_of(shares) == ["0", "1", "2", "3", "4", "5", "6", "7", "0", "1"]
    assert [share.limit_mib is None for share in shares] == [False, False, *[True] * 6, False, False]


def test_ten_nodes_on_one_device_share_its_memory_with_all_their_processes() -> None:
    shares = plan(L4[:1], 10, workers=2)
    assert devices_of(shares) == ["0"] * 10
    assert {share.limit_mib for share in shares} == {24 * GIB // 20 - CONTEXT_MIB}


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("supernodes", [1, 3, 10, 14, 37])
@pytest.mark.parametrize("workers", [1, 2])
def test_shares_never_exceed_a_devices_memory(count: int, supernodes: int, workers: int) -> None:
    devices = [Device(str(index), (index + 1) * 80 * GIB) for index in range(count)]
    shares = plan(devices, supernodes, workers)
    assert len(shares) == supernodes
    for device in devices:
        limits = [share.limit_mib for share in shares if share.device == device]
        if len(limits) > 1:
            assert None not in limits
            assert sum((limit or 0) + CONTEXT_MIB for limit in limits) * workers <= device.memory_mib


def test_unequal_devices_take_nodes_by_their_size() -> None:
    small, large = Device("0", 24 * GIB), Device("1", 80 * GIB)
    assert [device.id for device in spread([small, large], 10)].count("0") == 2
    limits = {share.device.id: share.limit_mib or 0 for share in plan([small, large], 10, workers=2)}
    assert min(limits.values()) * 2 > max(limits.values())


def test_a_nodes_device_does_not_depend_on_how_many_come_after_it() -> None:
    for devices in (L4[:3], [Device("0", 24 * GIB), Device("1", 80 * GIB)]):
        assert spread(devices, 20)[:7] == spread(devices, 7)


def test_mig_slices_are_devices_by_their_uuid() -> None:
    slices = [Device("MIG-a", 10 * GIB), Device("MIG-b", 10 * GIB), Device("MIG-c", 20 * GIB)]
    shares = plan(slices, 4, workers=1)
    assert sorted(devices_of(shares)) == ["MIG-a", "MIG-b", "MIG-c", "MIG-c"]
    assert gpu.environment(shares[0])["CUDA_VISIBLE_DEVICES"] == "MIG-c"


def test_too_little_memory_is_refused_with_the_arithmetic_and_what_would_fit() -> None:
    with pytest.raises(SettingError) as refused:
        plan([Device("0", 8 * GIB, "NVIDIA T4")], 10, workers=2)
    text = str(refused.value)
    assert text.startswith("SUPERNODES=10: too many for the GPUs: GPU 0 (NVIDIA T4) has 8192 MiB, ")
    assert "10 nodes x 2 processes (EXECUTOR_WORKERS) get 409 MiB each, but need 1024 MiB each" in text
    assert f"{CONTEXT_MIB} MiB for CUDA and at least {MIN_MIB} MiB for the framework" in text
    assert "run 4 SuperNodes, which fit: SUPERNODES=4" in text
    assert "GPUS=none" in text
    assert "EXECUTOR_WORKERS=1" not in text  # would not be enough


def test_one_process_per_node_is_suggested_if_that_fits() -> None:
    with pytest.raises(SettingError, match="EXECUTOR_WORKERS=1"):
        plan([Device("0", 15 * GIB)], 10, workers=2)
    assert len(plan([Device("0", 15 * GIB)], 10, workers=1)) == 10


@pytest.mark.parametrize("devices", [[Device("0", 8 * GIB)], [Device("0", 9 * GIB), Device("1", 30 * GIB)], L4[:2]])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_as_many_nodes_fit_as_a_refusal_says_and_not_one_more(devices: list[Device], workers: int) -> None:
    with pytest.raises(SettingError) as refused:
        plan(devices, 1000, workers)
    match = re.search(r"SUPERNODES=(\d+)", refused.value.hint)
    assert match is not None
    fit = int(match[1])
    assert len(plan(devices, fit, workers)) == fit
    with pytest.raises(SettingError):
        plan(devices, fit + 1, workers)


def test_no_number_of_nodes_is_suggested_if_not_even_one_fits() -> None:
    with pytest.raises(SettingError) as refused:
        plan([Device("0", 512)], 1, workers=1)
    assert refused.value.hint == "compute on the CPU: GPUS=none"


def test_a_memory_limit_set_by_the_user_applies_to_every_node_and_is_checked() -> None:
    assert {share.limit_mib for share in plan(L4[:2], 3, workers=2, limit_mib=2048)} == {2048}
    with pytest.raises(
        SettingError, match=r"4992 MiB each: 896 MiB for CUDA and GPU_MEMORY=4096MiB for the framework; run 4 SuperN"
    ):
        plan(L4[:2], 10, workers=2, limit_mib=4096)


def test_equal_parts_are_suggested_if_only_they_fit() -> None:
    with pytest.raises(SettingError, match=", or leave GPU_MEMORY out, for equal parts that fit, or "):
        plan(L4[:2], 10, workers=2, limit_mib=4096)
    with pytest.raises(SettingError) as refused:
        plan(L4[:2], 100, workers=2, limit_mib=4096)
    assert "leave GPU_MEMORY out" not in refused.value.hint


def test_the_environment_of_a_share_binds_any_process_to_it() -> None:
    assert gpu.environment(Share(L4[1], 716)) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1",
        "BOUQUET_GPU": "GPU 1 (NVIDIA L4)",
        "BOUQUET_GPU_MEMORY_MIB": "716",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.0291",  # 716 of 24576 MiB, rounded down
        "XLA_CLIENT_MEM_FRACTION": "",
    }


@pytest.mark.parametrize("share", [Share(L4[1], None), Share(Device("1", 0), 716)])
def test_without_a_limit_or_the_size_of_the_device_jax_gets_no_fraction(share: Share) -> None:
    variables = gpu.environment(share)
    assert variables["BOUQUET_GPU_MEMORY_MIB"] == str(share.limit_mib or "")
    assert variables["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert not variables.keys() & {"XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"}


def test_a_limit_above_the_size_of_the_device_is_all_of_it() -> None:
    assert gpu.environment(Share(Device("1", 1000), 2000))["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "1.0000"


def test_a_node_on_the_cpu_sees_no_gpu_whatever_it_inherits() -> None:
    assert gpu.environment(None) == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "BOUQUET_GPU": "",
        "BOUQUET_GPU_MEMORY_MIB": "",
    }


@pytest.mark.parametrize("share", [Share(L4[1], 716), Share(L4[1], None), None])
def test_a_process_describes_its_share_from_its_environment(share: Share | None) -> None:
    assert gpu.describe_assigned(gpu.environment(share)) == (str(share) if share else "CPU")


def test_the_plan_is_a_line_for_each_share() -> None:
    assert gpu.summary(plan(L4[:1], 10, workers=2), "found by nvidia-smi") == [
        "GPUs: 1 for 10 SuperNodes (found by nvidia-smi)",
        "  GPU 0 (NVIDIA L4), at most 332 MiB per process (of 24576 MiB): partition-id 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ]
    assert gpu.summary((), "GPUS=none") == ["GPUs: none, the nodes compute on the CPU (GPUS=none)"]


def test_a_list_of_devices_is_parsed_and_formatted_back() -> None:
    devices = gpu.parse_devices("GPUS", "0:24GiB, MIG-1a/3/0:9728MiB,GPU-2b:1.5GiB")
    assert devices == (Device("0", 24576), Device("MIG-1a/3/0", 9728), Device("GPU-2b", 1536))
    assert gpu.parse_devices("GPUS", gpu.format_devices(devices)) == devices


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("0", "0 has no memory size"),
        ("0:24GiB,1", "1 has no memory size"),
        ("0:24GiB,0:24GiB", "0 is listed twice"),
        ("0:24", "not a device with a size in MiB or GiB"),
        ("0:24GiB,", "not a device with a size in MiB or GiB"),
        ("0:0GiB", "0 is not a size"),
        ("0:2.4.1GiB", "2.4.1 is not a size"),
        ("-1", "not a device with a size"),
    ],
)
def test_a_malformed_list_is_refused_with_the_setting_and_the_value(given: str, problem: str) -> None:
    with pytest.raises(SettingError) as refused:
        gpu.parse_devices("GPUS", given)
    assert str(refused.value).startswith("GPUS=")
    assert problem in str(refused.value)
