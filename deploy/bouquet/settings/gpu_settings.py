"""Settings that determine what the nodes compute on."""

import os
from dataclasses import dataclass
from typing import Self

from bouquet.errors import SettingError
from bouquet.gpu.plan import Device, parse_device, parse_devices, parse_memory
from bouquet.settings.env import Environment, text
from bouquet.settings.executor_settings import executor_workers

SWARM_GPU = "DOCKER_RESOURCE_NVIDIA-GPU"
"""The variable in which Swarm names the GPU that it has assigned to a task (`node-generic-resources`)."""


@dataclass(frozen=True)
class GpuSettings:
    """What the nodes compute on (`bouquet.gpu.plan`).

    Attributes:
        devices: The list in `GPUS`; empty for the CPU; None for what nvidia-smi finds.
        assigned: `GPUS=assigned`: an engine's device plugin has given this one node the devices that it sees, so there
            is nothing to plan.
        memory_mib: MiB that a framework may allocate in each process; None for an equal part.
        nodes: How many nodes an equal part is computed for; None for the fleet's size.
        workers: Processes per node.
        device: The device of this one node, set by GPU or assigned by Swarm; None to use the plan.
    """

    devices: tuple[Device, ...] | None
    assigned: bool
    memory_mib: int | None
    nodes: int | None
    workers: int
    device: Device | None

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        value = text(environment, "GPUS", "auto")
        devices: tuple[Device, ...] | None = None
        if value not in ("auto", "assigned"):
            devices = () if value == "none" else parse_devices("GPUS", value)
        memory = text(environment, "GPU_MEMORY", "")
        memory_mib, nodes = parse_memory("GPU_MEMORY", memory) if memory else (None, None)
        source = "GPU" if text(environment, "GPU", "") else SWARM_GPU
        gpu = text(environment, source, "")
        device = parse_device(source, gpu) if gpu not in ("", "none") else None
        if device and device.memory_mib:
            raise SettingError(source, gpu, "a device only", "set its memory by GPU_MEMORY, as in GPU_MEMORY=4GiB")
        return cls(
            devices=() if gpu == "none" else devices,
            assigned=value == "assigned" and not gpu,
            memory_mib=memory_mib,
            nodes=nodes,
            workers=executor_workers(environment),
            device=device,
        )
