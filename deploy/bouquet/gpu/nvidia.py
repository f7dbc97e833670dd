"""Which NVIDIA GPUs this machine has, and whether Docker can hand them to containers.

Works the same on the host and in a container that was given the GPUs, where NVIDIA's runtime puts `nvidia-smi`.
"""

import json
import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec

from bouquet.errors import HostError, SettingError
from bouquet.gpu import plan as gpu
from bouquet.gpu.plan import Device, Share
from bouquet.settings.gpu_settings import GpuSettings

QUERY = ("--query-gpu=index,name,memory.total,mig.mode.current", "--format=csv,noheader,nounits")
_GPU = re.compile(r"GPU (\d+): (.+?) \(UUID: ")
_SLICE = re.compile(r"\s+MIG (\S+\.(\d+)gb\S*)\s+Device\s+\d+: \(UUID: (MIG-\S+)\)")


def shares(settings: GpuSettings, supernodes: int) -> tuple[tuple[Share, ...], str]:
    """Plan what the nodes of this machine compute on.

    Returns
    -------
    tuple[tuple[Share, ...], str]
        A share for each partition-id, or none for the CPU; and why.

    Raises
    ------
    SettingError
        There are GPUs, but too little memory for so many nodes.
    HostError
        There are GPUs that cannot be read.
    """
    devices, why = settings.devices, "as GPUS says"
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
            f"there are {supernodes} SuperNodes",
            f"reckon with them: GPU_MEMORY=1/{supernodes}, or leave GPU_MEMORY out",
        )
    return planned[:supernodes], why


def share(settings: GpuSettings, supernodes: int, partition_id: int) -> tuple[Share | None, str]:
    """Return what one node computes on, None for the CPU; and why."""
    if settings.own is not None:
        return Share(settings.own, settings.memory_mib), "as GPU says"
    planned, why = shares(settings, supernodes)
    return (planned[partition_id] if planned else None), why


def for_containers(settings: GpuSettings, supernodes: int) -> tuple[tuple[Share, ...], str]:
    """Return `shares` as far as Docker can hand GPUs to containers; raise as `_without`."""
    planned, why = shares(settings, supernodes)
    if not planned or docker_runtime():
        return planned, why
    return _without(settings, "Docker has no NVIDIA runtime", "install the NVIDIA Container Toolkit")


def for_processes(settings: GpuSettings, supernodes: int) -> tuple[tuple[Share, ...], str]:
    """Return `shares` as far as this environment's TensorFlow can use GPUs; raise as `_without`."""
    planned, why = shares(settings, supernodes)
    if not planned or find_spec("nvidia") is not None:  # the packages of tensorflow[and-cuda]
        return planned, why
    problem = "the TensorFlow in .venv is built for the CPU"
    return _without(settings, problem, "take the other: TENSORFLOW=cuda make -B .venv/ready")


def _without(settings: GpuSettings, problem: str, mend: str) -> tuple[tuple[Share, ...], str]:
    """Return that there are no shares, and why; raise `SettingError` where `GPUS` names devices."""
    if settings.devices:
        raise SettingError("GPUS", gpu.listed(settings.devices), problem, f"{mend}, or compute on the CPU: GPUS=none")
    return (), f"there are GPUs, but {problem}; to use them, {mend}"


@cache
def find() -> tuple[tuple[Device, ...], str]:
    """Return this machine's devices, and where that is known from, or why there are none."""
    if shutil.which("nvidia-smi") is None:
        return (), "there is no nvidia-smi"
    asked, listed = _nvidia_smi(*QUERY), _nvidia_smi("-L")
    for answer in (asked, listed):
        if answer.returncode:
            said = (answer.stdout.strip() or answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[0]
            return (), f"nvidia-smi finds none: {said}"
    devices = parse(asked.stdout, listed.stdout)
    if devices:
        return devices, "by nvidia-smi"
    return (), "nvidia-smi finds none" + (": MIG is on, and has no instances" if "Enabled" in asked.stdout else "")


def parse(queried: str, listed: str) -> tuple[Device, ...]:
    """Return the devices of what `nvidia-smi --query-gpu` and `nvidia-smi -L` print.

    A GPU in MIG mode computes only by its slices. Their size is the profile's, in GB as it is named.
    """
    slices = _slices(listed)
    devices: list[Device] = []
    for row in queried.splitlines():
        if not row.strip():
            continue
        index, name, memory, mig = (cell.strip() for cell in row.split(","))
        if mig == "Enabled":
            devices += slices.get(index, [])
        elif memory.isdigit():
            devices.append(Device(index, int(memory), name))
        else:
            raise HostError(
                f"GPU {index} ({name}): nvidia-smi gives its memory as {memory}",
                f"give the GPUs by hand, as in GPUS={index}:24GiB, or none: GPUS=none",
            )
    return tuple(devices)


def docker_runtime() -> bool:
    """Whether Docker can hand GPUs to containers: it knows NVIDIA's runtime, or has its hook at hand."""
    if shutil.which("nvidia-container-runtime-hook"):
        return True
    asked = subprocess.run(
        ["docker", "info", "--format", "{{json .Runtimes}}"], capture_output=True, text=True, check=False
    )
    try:
        return asked.returncode == 0 and "nvidia" in json.loads(asked.stdout)
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


def _nvidia_smi(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=60)
