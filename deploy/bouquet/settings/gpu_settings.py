"""Settings that say what the nodes compute on."""

import os
from dataclasses import dataclass
from typing import Self

from bouquet.errors import SettingError
from bouquet.gpu.plan import Device, parse_device, parse_devices, parse_memory
from bouquet.settings.env import Environment, text
from bouquet.settings.executor_settings import executor_workers


@dataclass(frozen=True)
class GpuSettings:
    """What the nodes compute on (`bouquet.gpu.plan`).

    Attributes:
        devices: The list in `GPUS`; empty for the CPU; None for what nvidia-smi finds.
        memory_mib: MiB that TensorFlow may allocate in each process; None for an equal part.
        nodes: How many nodes an equal part is computed for; None for the fleet's size.
        workers: Processes per node.
        own: The device of this one node, whatever the plan says.
    """

    devices: tuple[Device, ...] | None
    memory_mib: int | None
    nodes: int | None
    workers: int
    own: Device | None

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        given = text(environment, "GPUS", "auto")
        own, memory = text(environment, "GPU", ""), text(environment, "GPU_MEMORY", "")
        memory_mib, nodes = parse_memory("GPU_MEMORY", memory) if memory else (None, None)
        devices: tuple[Device, ...] | None = None
        if given != "auto":
            devices = () if given == "none" else parse_devices("GPUS", given)
        device = parse_device("GPU", own) if own not in ("", "none") else None
        if device and device.memory_mib:
            raise SettingError("GPU", own, "a device only", "set its memory by GPU_MEMORY, as in GPU_MEMORY=4GiB")
        return cls(
            devices=() if own == "none" else devices,
            memory_mib=memory_mib,
            nodes=nodes,
            workers=executor_workers(environment),
            own=device,
        )
