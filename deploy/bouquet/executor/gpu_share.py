"""Holds the frameworks of this process to its node's share of a GPU, whatever app uses them.

The node's entry point has set `BOUQUET_GPU`, the assigned GPU, and `BOUQUET_GPU_MEMORY_MIB`, how much of its memory
each process may allocate; and the variables that do the same for JAX (`bouquet.gpu.plan.environment`). TensorFlow and
PyTorch have no variable that holds for all their releases and apps, so this module calls them. It keeps JAX from
computing on the CPU in place of the GPU.

Nothing here initializes CUDA: only an app's first operation does.
"""

import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from bouquet.errors import SettingError
from bouquet.gpu.plan import GPU, GPU_MEMORY_MIB
from bouquet.runtime.log import LOGGER

MIB = 1 << 20
CPU_BUILD = "a build for the CPU, which computes there"


class GpuShare:
    """The share of a GPU that the environment assigns to this process; none on the CPU.

    Args:
        environment: The environment variables.
        report: Whether to log what was set.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, *, report: bool = True) -> None:
        self._gpu = environment.get(GPU, "")
        self._limit_mib = int(environment.get(GPU_MEMORY_MIB) or 0)
        self._report = report
        self._done: set[str] = set()
        self._is_seen = False

    def apply(self) -> None:
        """Prepare each framework that was imported since the last call.

        Call it before the app's first operation: after a fork, after the import of the app, and before each message,
        because an app may import a framework in a function.

        Raises:
            SettingError: Frameworks that were built for CUDA do not see the assigned GPU.
        """
        if not self._gpu:
            return
        unseen = []
        for name, prepare in _PREPARE.items():
            if name in self._done or (module := sys.modules.get(name)) is None:
                continue
            try:
                outcome = prepare(module, self._gpu, self._limit_mib)
            except GpuUnseenError:
                unseen.append(_NAMES[name])
                continue
            self._done.add(name)
            self._is_seen |= outcome != CPU_BUILD and name in _CHECKED
            if self._report:
                LOGGER.info("%s on %s: %s", _NAMES[name], self._gpu, outcome)
        if unseen and not self._is_seen:  # otherwise the app may use the framework that sees it
            raise SettingError(
                GPU,
                self._gpu,
                f"{' and '.join(unseen)} cannot use the GPU that is assigned to this node",
                "check NVIDIA's driver and the framework's CUDA packages, or compute on the CPU: GPUS=none",
            )


class GpuUnseenError(Exception):
    """A framework that was built for CUDA does not see the assigned GPU."""


def prepare_tensorflow(tensorflow: Any, gpu: str, limit_mib: int) -> str:
    """Give TensorFlow a logical device of the permitted size; return what was set, for people."""
    if not tensorflow.test.is_built_with_cuda():
        return CPU_BUILD
    config = tensorflow.config
    devices = config.list_physical_devices("GPU")
    if not devices:
        raise GpuUnseenError
    if not limit_mib:
        return "all its memory, allocated as needed"
    try:
        configuration = config.LogicalDeviceConfiguration(memory_limit=limit_mib)
        config.set_logical_device_configuration(devices[0], [configuration])
    except (RuntimeError, ValueError) as error:
        return f"no memory limit, because the app used it while it was imported ({error})"
    # TensorFlow refuses this call, which many apps make, for a logical device. The node's TF_FORCE_GPU_ALLOW_GROWTH
    # has turned growth on already.
    config.experimental.set_memory_growth = lambda device, enable: None
    return f"at most {limit_mib} MiB"


def prepare_torch(torch: Any, gpu: str, limit_mib: int) -> str:
    """Have PyTorch limit its allocator when it initializes CUDA; return what was set, for people."""
    if torch.version.cuda is None:
        return CPU_BUILD
    if not torch.cuda.is_available():
        raise GpuUnseenError
    if not limit_mib:
        return "all its memory, allocated as needed"

    def limit() -> None:
        try:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mib * MIB / total), 0)
        except Exception as error:  # it must not keep the app from computing
            LOGGER.warning("PyTorch on %s: no memory limit (%s)", gpu, error)

    # The function itself would initialize CUDA. PyTorch's own seeds wait in this queue, too.
    torch.cuda._lazy_call(limit)
    return f"at most {limit_mib} MiB"


def prepare_jax(jax: Any, gpu: str, limit_mib: int) -> str:
    """Have JAX fail where it cannot use its CUDA plugin; return what the environment has set, for people.

    By itself JAX would compute on the CPU, with a warning. A choice of platforms by the app is left as it is.
    """
    if not _has_cuda_plugin():
        return CPU_BUILD
    if not jax.config.jax_platforms:
        jax.config.update("jax_platforms", "cuda,cpu")  # the app's first operation fails if one cannot be used
    return f"at most {limit_mib} MiB" if limit_mib else "JAX's own limit, allocated as needed"


def _has_cuda_plugin() -> bool:
    spec = find_spec("jax_plugins")
    folders = spec.submodule_search_locations if spec else None
    return any(module.name.startswith("xla_cuda") for module in iter_modules(folders or ()))


_PREPARE: dict[str, Callable[[Any, str, int], str]] = {
    "tensorflow": prepare_tensorflow,
    "torch": prepare_torch,
    "jax": prepare_jax,
}
_NAMES = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX"}
_CHECKED = ("tensorflow", "torch")
"""The frameworks that say whether they see the GPU before the app computes."""
