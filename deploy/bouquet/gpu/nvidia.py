"""Which NVIDIA GPUs this machine has, and whether Docker can give containers access to them.

It works the same on the host and in a container with access to the GPUs, where NVIDIA's runtime adds `nvidia-smi`.
"""

import json
import re
import shutil
from functools import cache

from bouquet.errors import HostError, SettingError
from bouquet.gpu import plan as gpu
from bouquet.gpu.plan import Device, Share
from bouquet.probing import probe
from bouquet.settings.gpu_settings import GpuSettings

QUERY = ("--query-gpu=index,name,memory.total,memory.reserved,mig.mode.current", "--format=csv,noheader,nounits")
DRIVER_HINT = (
    "restart NVIDIA's driver or the machine (a driver that is only slow: nvidia-smi -pm 1), or use the CPU: GPUS=none"
)
_GPU = re.compile(r"GPU (\d+): (.+?) \(UUID: ")
_SLICE = re.compile(r"\s+MIG (\S+\.(\d+)gb\S*)\s+Device\s+\d+: \(UUID: (MIG-\S+)\)")


def shares(settings: GpuSettings, supernodes: int) -> tuple[tuple[Share, ...], str]:
    """Plan what the nodes of this machine compute on.

    Returns:
        A share for each partition-id, or no shares for the CPU; and the reason.

    Raises:
        SettingError: The GPUs have too little memory for so many nodes.
        HostError: nvidia-smi does not answer, or does not report a GPU's memory.
    """
    devices, why = settings.devices, "set by GPUS"
    if settings.assigned:
        raise SettingError("GPUS", "assigned", "only an engine with a device plugin assigns devices", "leave GPUS out")
    if devices is None:
        devices, why = find()
    elif not devices:
        why = "GPUS=none"
    if not devices:
        return (), why
    planned = gpu.plan(devices, settings.nodes or supernodes, settings.workers, settings.memory_mib)
    if supernodes > len(planned):
        raise SettingError(
            "GPU_MEMORY",
            f"1/{settings.nodes}",
            f"too few parts for {supernodes} SuperNodes",
            f"plan for all of them: GPU_MEMORY=1/{supernodes}, or leave GPU_MEMORY out",
        )
    return planned[:supernodes], why


def share(settings: GpuSettings, supernodes: int, partition_id: int) -> tuple[Share | None, str]:
    """Return what one node computes on, None for the CPU; and the reason.

    Raises:
        SettingError: As for `shares`.
        HostError: As for `shares`, or nvidia-smi finds no device although an engine has assigned one.
    """
    if settings.device is not None:
        return Share(settings.device, settings.memory_mib), "set by GPU"
    if settings.assigned:
        return _assigned(settings), "assigned to this node alone"
    planned, why = shares(settings, supernodes)
    return (planned[partition_id] if planned else None), why


def _assigned(settings: GpuSettings) -> Share:
    """Return all devices that this node sees. Nothing is divided, and the processes see the same devices as before."""
    devices, why = find()
    if not devices:
        raise HostError(
            f"a GPU is assigned to this node, but {why}",
            "check the device plugin, and the runtime class of NVIDIA's container runtime; or use the CPU: GPUS=none",
        )
    first, *others = devices
    if others:
        first = Device(",".join(device.id for device in devices), sum(device.memory_mib for device in devices))
    return Share(first, settings.memory_mib)


def for_containers(settings: GpuSettings, supernodes: int) -> tuple[tuple[Share, ...], str]:
    """Return `shares`, or none if Docker cannot give containers access to GPUs.

    Raises:
        SettingError: As for `shares`, or `GPUS` lists devices that containers cannot use.
        HostError: As for `shares`.
    """
    planned, why = shares(settings, supernodes)
    if not planned or docker_runtime():
        return planned, why
    return _no_shares(settings, "Docker has no NVIDIA runtime", "install the NVIDIA Container Toolkit")


def _no_shares(settings: GpuSettings, problem: str, hint: str) -> tuple[tuple[Share, ...], str]:
    """Return no shares, and the reason; raise `SettingError` if `GPUS` lists devices."""
    if settings.devices:
        raise SettingError("GPUS", gpu.format_devices(settings.devices), problem, f"{hint}, or use the CPU: GPUS=none")
    return (), f"there are GPUs, but {problem}; to use them, {hint}"


@cache
def find() -> tuple[tuple[Device, ...], str]:
    """Return this machine's devices, and how they were found, or why there are none.

    Raises:
        HostError: nvidia-smi does not answer, or does not report a GPU's memory.
    """
    if shutil.which("nvidia-smi") is None:
        return (), "nvidia-smi is not installed"
    queried, listed = probe(["nvidia-smi", *QUERY], DRIVER_HINT), probe(["nvidia-smi", "-L"], DRIVER_HINT)
    for answer in (queried, listed):
        if answer.returncode:
            text = answer.stdout.strip() or answer.stderr.strip() or f"exit code {answer.returncode}"
            return (), f"nvidia-smi finds none: {text.splitlines()[0]}"
    devices = parse(queried.stdout, listed.stdout)
    if devices:
        return devices, "found by nvidia-smi"
    return (), "nvidia-smi finds none" + (": MIG is on, but has no instances" if "Enabled" in queried.stdout else "")


def parse(queried: str, listed: str) -> tuple[Device, ...]:
    """Return the devices in the output of `nvidia-smi --query-gpu` and `nvidia-smi -L`.

    A GPU has the memory that CUDA shows, without what the driver reserves for itself. A GPU in MIG mode counts as its
    slices. The memory of a slice is the size in its profile's name, in GB.

    Raises:
        HostError: nvidia-smi does not report a GPU's memory.
    """
    slices = _slices(listed)
    devices: list[Device] = []
    for row in queried.splitlines():
        if not row.strip():
            continue
        index, name, memory, reserved, mig = (cell.strip() for cell in row.split(","))
        if mig == "Enabled":
            devices += slices.get(index, [])
        elif memory.isdigit():
            devices.append(Device(index, int(memory) - (int(reserved) if reserved.isdigit() else 0), name))
        else:
            raise HostError(
                f"GPU {index} ({name}): nvidia-smi reports its memory as {memory}",
                f"list the GPUs with their memory, as in GPUS={index}:24GiB, or use the CPU: GPUS=none",
            )
    return tuple(devices)


def docker_runtime() -> bool:
    """Return whether Docker can give containers access to GPUs: it has NVIDIA's runtime, or its hook is installed.

    Raises:
        HostError: Docker does not answer.
    """
    if shutil.which("nvidia-container-runtime-hook"):
        return True
    info = probe(["docker", "info", "--format", "{{json .Runtimes}}"], "restart Docker")
    try:
        return info.returncode == 0 and "nvidia" in json.loads(info.stdout)
    except ValueError:
        return False


def _slices(listed: str) -> dict[str, list[Device]]:
    slices: dict[str, list[Device]] = {}
    index = ""
    for line in listed.splitlines():
        if match := _GPU.match(line):
            index = match[1]
        elif match := _SLICE.match(line):
            memory_mib = int(match[2]) * 1000**3 // 1024**2
            slices.setdefault(index, []).append(Device(match[3], memory_mib, f"MIG {match[1]} of GPU {index}"))
    return slices
