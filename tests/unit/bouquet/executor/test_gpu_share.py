"""Each framework of a worker computes on its node's GPU, within its limit, and never falls back to the CPU silently."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bouquet.errors import SettingError
from bouquet.executor.gpu_share import (
    CPU_BUILD,
    GpuShare,
    GpuUnseenError,
    prepare_jax,
    prepare_tensorflow,
    prepare_torch,
)
from bouquet.runtime.log import LOGGER

GIB = 1 << 30
SHARE = {"BOUQUET_GPU": "GPU 1 (NVIDIA L4)", "BOUQUET_GPU_MEMORY_MIB": "716"}
NO_MODULE = SimpleNamespace()


class TensorFlow:
    """What `tf.config` and `tf.test` do, with the given GPUs."""

    def __init__(self, *gpus: str, cuda: bool = True, used: bool = False) -> None:
        self.gpus = gpus
        self.limits: dict[str, list[float]] = {}
        self.grown: list[str] = []
        self.used = used
        self.cuda = cuda
        self.config = self
        self.test = self
        self.experimental = SimpleNamespace(set_memory_growth=self._set_memory_growth)

    def is_built_with_cuda(self) -> bool:
        return self.cuda

    def list_physical_devices(self, kind: str) -> list[str]:
        assert kind == "GPU"
        return list(self.gpus)

    def LogicalDeviceConfiguration(self, memory_limit: float) -> float:  # noqa: N802
        return memory_limit

    def set_logical_device_configuration(self, gpu: str, limits: list[float]) -> None:
        if self.used:
            raise RuntimeError("Virtual devices cannot be modified after being initialized")
        self.limits[gpu] = limits

    def _set_memory_growth(self, gpu: str, enable: bool) -> None:
        if gpu in self.limits:
            raise ValueError("Cannot set memory growth on device when virtual devices configured")
        self.grown.append(gpu)


class Torch:
    """What `torch.cuda` does. CUDA is initialized by `use`."""

    def __init__(self, devices: int = 1, cuda: str | None = "13.0", total_gib: float = 24) -> None:
        self.version = SimpleNamespace(cuda=cuda)
        self.cuda = self
        self.devices = devices
        self.total_gib = total_gib
        self.initialized = False
        self.fractions: dict[int, float] = {}
        self._queued: list[Callable[[], None]] = []

    def is_available(self) -> bool:
        return self.devices > 0

    def get_device_properties(self, device: int) -> Any:
        self.initialized = True
        return SimpleNamespace(total_memory=int(self.total_gib * GIB))

    def set_per_process_memory_fraction(self, fraction: float, device: int) -> None:
        self.initialized = True
        if not 0 <= fraction <= 1:
            raise ValueError(fraction)
        self.fractions[device] = fraction

    def _lazy_call(self, call: Callable[[], None]) -> None:
        if self.initialized:
            call()
        else:
            self._queued.append(call)

    def use(self) -> None:
        self.initialized = True
        for call in self._queued:
            call()


@pytest.fixture(autouse=True)
def no_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "torch", "jax"):
        monkeypatch.delitem(sys.modules, name, raising=False)


# -- TensorFlow


def test_tensorflow_gets_one_logical_device_of_the_size_of_its_share() -> None:
    tensorflow = TensorFlow("L4")
    assert prepare_tensorflow(tensorflow, "GPU 1", 716) == "at most 716 MiB"
    assert tensorflow.limits == {"L4": [716]}


def test_an_app_that_turns_memory_growth_on_runs_with_a_limit() -> None:
    tensorflow = TensorFlow("L4")
    prepare_tensorflow(tensorflow, "GPU 1", 716)
    tensorflow.config.experimental.set_memory_growth("L4", True)
    assert tensorflow.grown == [], "TF_FORCE_GPU_ALLOW_GROWTH has turned it on"


def test_without_a_limit_tensorflow_is_left_as_it_is() -> None:
    tensorflow = TensorFlow("L4")
    assert prepare_tensorflow(tensorflow, "GPU 1", 0) == "all its memory, allocated as needed"
    tensorflow.config.experimental.set_memory_growth("L4", True)
    assert (tensorflow.limits, tensorflow.grown) == ({}, ["L4"])


def test_an_app_that_used_tensorflow_when_it_was_imported_runs_without_a_limit() -> None:
    outcome = prepare_tensorflow(TensorFlow("L4", used=True), "GPU 1", 716)
    assert outcome.startswith("no memory limit, because the app used it while it was imported (Virtual devices")


def test_a_tensorflow_for_the_cpu_is_left_alone() -> None:
    assert prepare_tensorflow(TensorFlow(cuda=False), "GPU 1", 716) == CPU_BUILD


def test_a_tensorflow_that_does_not_see_the_gpu_is_an_error() -> None:
    with pytest.raises(GpuUnseenError):
        prepare_tensorflow(TensorFlow(), "GPU 1", 716)


# -- PyTorch


def test_pytorch_is_limited_when_the_app_first_uses_the_gpu_and_not_before() -> None:
    torch = Torch(total_gib=24)
    assert prepare_torch(torch, "GPU 1", 6 * 1024) == "at most 6144 MiB"
    assert not torch.initialized, "CUDA takes memory, and a worker of this app may never use it"
    torch.use()
    assert torch.fractions == {0: 0.25}


def test_a_pytorch_in_use_is_limited_at_once() -> None:
    torch = Torch()
    torch.use()
    prepare_torch(torch, "GPU 1", 6 * 1024)
    assert torch.fractions == {0: 0.25}


def test_a_limit_above_the_size_of_the_device_is_all_of_it() -> None:
    torch = Torch(total_gib=1)
    prepare_torch(torch, "GPU 1", 2048)
    torch.use()
    assert torch.fractions == {0: 1.0}


def test_a_limit_that_pytorch_refuses_does_not_keep_the_app_from_computing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch = Torch()
    monkeypatch.setattr(torch, "get_device_properties", lambda device: NO_MODULE)
    monkeypatch.setattr(LOGGER, "propagate", True)
    prepare_torch(torch, "GPU 1", 716)
    torch.use()
    [message] = caplog.messages
    assert message.startswith("PyTorch on GPU 1: no memory limit (")


def test_without_a_limit_pytorch_is_left_as_it_is() -> None:
    torch = Torch()
    assert prepare_torch(torch, "GPU 1", 0) == "all its memory, allocated as needed"
    torch.use()
    assert torch.fractions == {}


def test_a_pytorch_for_the_cpu_is_left_alone() -> None:
    assert prepare_torch(Torch(devices=0, cuda=None), "GPU 1", 716) == CPU_BUILD


def test_a_pytorch_that_does_not_see_the_gpu_is_an_error() -> None:
    with pytest.raises(GpuUnseenError):
        prepare_torch(Torch(devices=0), "GPU 1", 716)


# -- JAX


class Jax:
    """What `jax.config` does."""

    def __init__(self, platforms: str | None = None) -> None:
        self.config = self
        self.jax_platforms = platforms

    def update(self, name: str, value: str) -> None:
        setattr(self, name, value)


@pytest.fixture
def cuda_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's plugin for CUDA, as its wheel installs it: a module in a namespace package."""
    (tmp_path / "jax_plugins" / "xla_cuda13").mkdir(parents=True)
    (tmp_path / "jax_plugins" / "xla_cuda13" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("cuda_plugin")
def test_a_jax_for_cuda_must_use_the_gpu_and_may_use_the_cpu_besides() -> None:
    jax = Jax()
    assert prepare_jax(jax, "GPU 1", 716) == "at most 716 MiB"
    assert jax.jax_platforms == "cuda,cpu"
    assert prepare_jax(Jax(), "GPU 1", 0) == "JAX's own limit, allocated as needed"


@pytest.mark.usefixtures("cuda_plugin")
def test_the_platforms_that_an_app_chooses_for_jax_stay() -> None:
    jax = Jax("cpu")
    prepare_jax(jax, "GPU 1", 716)
    assert jax.jax_platforms == "cpu"


def test_a_jax_for_the_cpu_is_left_alone() -> None:
    jax = Jax()
    assert prepare_jax(jax, "GPU 1", 716) == CPU_BUILD
    assert jax.jax_platforms is None


@pytest.mark.usefixtures("cuda_plugin")
def test_a_jax_for_cuda_does_not_hide_that_pytorch_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", Jax())
    monkeypatch.setitem(sys.modules, "torch", Torch(devices=0))
    with pytest.raises(SettingError, match="PyTorch cannot use the GPU"):
        GpuShare(SHARE).apply()


# -- All


def test_a_framework_is_prepared_once_also_when_a_function_of_the_app_imports_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    share = GpuShare(SHARE)
    with caplog.at_level(logging.INFO):
        share.apply()
        assert caplog.messages == []
        monkeypatch.setitem(sys.modules, "torch", Torch())
        share.apply()
        monkeypatch.setitem(sys.modules, "tensorflow", TensorFlow("L4"))
        share.apply()
        share.apply()
        GpuShare(SHARE, report=False).apply()
    assert caplog.messages == [
        "PyTorch on GPU 1 (NVIDIA L4): at most 716 MiB",
        "TensorFlow on GPU 1 (NVIDIA L4): at most 716 MiB",
    ]


def test_a_node_on_the_cpu_asks_no_framework_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", NO_MODULE)
    GpuShare({"BOUQUET_GPU": "", "BOUQUET_GPU_MEMORY_MIB": ""}).apply()
    GpuShare({}).apply()


def test_a_gpu_that_no_framework_sees_fails_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", TensorFlow(cuda=False))
    monkeypatch.setitem(sys.modules, "torch", Torch(devices=0))
    share = GpuShare(SHARE)
    for _ in range(2):
        with pytest.raises(SettingError) as raised:
            share.apply()
    assert str(raised.value) == (
        "BOUQUET_GPU=GPU 1 (NVIDIA L4): PyTorch cannot use the GPU that is assigned to this node; check NVIDIA's "
        "driver and the framework's CUDA packages, or compute on the CPU: GPUS=none"
    )


def test_a_gpu_that_one_framework_sees_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", TensorFlow())
    monkeypatch.setitem(sys.modules, "torch", torch := Torch())
    GpuShare(SHARE).apply()
    torch.use()
    assert torch.fractions
