"""A node computes on its assigned GPU, within its memory limit, and never falls back to the CPU silently."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from tensorflow.config import LogicalDeviceConfiguration

from app import device
from app.device import prepare
from app.exceptions import SettingError


class Gpu(NamedTuple):
    name: str


class Config:
    """A `tf.config` with the given GPUs that records the limits set on them."""

    LogicalDeviceConfiguration = LogicalDeviceConfiguration

    def __init__(self, *gpus: str) -> None:
        self.gpus = [Gpu(name) for name in gpus]
        self.limits: dict[str, list[float]] = {}
        self.experimental = self

    def list_physical_devices(self, kind: str) -> list[Gpu]:
        assert kind == "GPU"
        return self.gpus

    def get_device_details(self, gpu: Gpu) -> dict[str, Any]:
        return {"device_name": gpu.name}

    def set_logical_device_configuration(self, gpu: Gpu, logical: list[Any]) -> None:
        self.limits[gpu.name] = [each.memory_limit for each in logical]


def test_without_a_gpu_the_device_is_the_cpu() -> None:
    assert prepare(Config(), {}) == "CPU"
    assert prepare(Config(), {"BOUQUET_GPU": "", "BOUQUET_GPU_MEMORY_MIB": ""}) == "CPU"


def test_a_share_of_a_gpu_is_one_logical_device_of_that_size() -> None:
    config = Config("NVIDIA L4")
    environ = {"BOUQUET_GPU": "GPU 1 (NVIDIA L4)", "BOUQUET_GPU_MEMORY_MIB": "716"}
    assert prepare(config, environ) == "GPU 1 (NVIDIA L4), at most 716 MiB"
    assert config.limits == {"NVIDIA L4": [716]}


def test_a_whole_gpu_has_no_limit() -> None:
    config = Config("NVIDIA L4")
    assert prepare(config, {"BOUQUET_GPU": "MIG-1a", "BOUQUET_GPU_MEMORY_MIB": ""}) == "NVIDIA L4, MIG-1a"
    assert config.limits == {}


def test_outside_a_fleet_tensorflow_chooses_the_device() -> None:
    config = Config("NVIDIA L4", "NVIDIA T4")
    assert prepare(config, {}) == "NVIDIA L4"
    assert config.limits == {}


def test_a_gpu_that_tensorflow_does_not_see_is_an_error_and_not_the_cpu() -> None:
    with pytest.raises(SettingError) as raised:
        prepare(Config(), {"BOUQUET_GPU": "GPU 0"})
    assert str(raised.value) == (
        "BOUQUET_GPU=GPU 0: TensorFlow does not see the GPU assigned to this node; "
        "build with TENSORFLOW=cuda, or compute on the CPU: GPUS=none"
    )


@pytest.mark.parametrize("limit", ["0", "-1", "2GiB", "²"])
def test_a_limit_that_is_not_a_positive_whole_number_is_rejected(limit: str) -> None:
    with pytest.raises(SettingError, match=f"BOUQUET_GPU_MEMORY_MIB={limit}: must be a whole number"):
        prepare(Config("NVIDIA L4"), {"BOUQUET_GPU_MEMORY_MIB": limit})


def test_a_process_without_the_variables_names_its_device() -> None:
    device.device.cache_clear()
    assert device.device()
