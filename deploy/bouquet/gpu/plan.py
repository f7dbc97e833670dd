"""Which GPU each SuperNode computes on, and how much of its memory it may use: pure arithmetic.

A process uses two kinds of GPU memory: CUDA's context, which no setting limits, and its framework's allocations, which
a setting limits. A node has up to EXECUTOR_WORKERS processes at a time. So the memory of a device that n nodes share is
divided into n x workers equal parts. Each process gets one part: first the context, the rest for the framework
(docs/decisions/0013-gpu-plan.md).

The same list of devices gives the same plan everywhere. So every replica computes its own share from its partition-id,
and a node's device does not depend on how many nodes are added later.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bouquet.errors import SettingError

CONTEXT_MIB = 896
"""MiB that CUDA and its libraries use in each process, besides the framework's allocations: 518 to 868 measured with
PyTorch, 550 to 740 with JAX, on an H100."""
MIN_MIB = 128
"""MiB that a framework needs at least in each process."""
GPU, GPU_MEMORY_MIB = "BOUQUET_GPU", "BOUQUET_GPU_MEMORY_MIB"
"""The variables that name a node's GPU, and limit the memory in MiB that each of its processes may allocate."""

_ENTRY = re.compile(r"(?P<id>[\w/-]+)(?::(?P<size>[\d.]+) ?(?P<unit>GiB|MiB))?", re.IGNORECASE)
_SIZE = re.compile(r"(?P<size>[\d.]+) ?(?P<unit>GiB|MiB)", re.IGNORECASE)
_PART = re.compile(r"1/(?P<nodes>[1-9]\d{0,3})")
_EXAMPLE = "GPUS=0:24GiB,1:24GiB"


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG slice of one.

    Attributes:
        id: Its value for CUDA_VISIBLE_DEVICES: the index that nvidia-smi shows, or a UUID.
        memory_mib: Its memory; 0 if unknown.
        name: Its model, for people.
    """

    id: str
    memory_mib: int
    name: str = ""

    def __str__(self) -> str:
        label = self.id if self.id.startswith(("GPU-", "MIG-")) else f"GPU {self.id}"
        return f"{label} ({self.name})" if self.name else label


@dataclass(frozen=True)
class Share:
    """What one node gets.

    Attributes:
        device: The GPU that its processes compute on.
        limit_mib: MiB that a framework may allocate in each process; None for no limit, on a device that no other node
            uses.
    """

    device: Device
    limit_mib: int | None

    def __str__(self) -> str:
        return str(self.device) + _limited(self.limit_mib)


def plan(devices: Sequence[Device], supernodes: int, workers: int, limit_mib: int | None = None) -> tuple[Share, ...]:
    """Return a share for each partition-id.

    Args:
        devices: The devices to share, at least one.
        supernodes: How many nodes share them.
        workers: How many processes a node may have at a time.
        limit_mib: MiB that a framework may allocate in each process; None for an equal part.

    Raises:
        SettingError: A share is too small for a framework.
    """
    assigned = spread(devices, supernodes)
    nodes = Counter(device.id for device in assigned)
    need = CONTEXT_MIB + (limit_mib or MIN_MIB)
    for device in devices:
        if nodes[device.id] and device.memory_mib // (nodes[device.id] * workers) < need:
            raise _too_many(devices, device, nodes[device.id], supernodes, workers, limit_mib)
    return tuple(
        Share(device, limit_mib or _part(device, nodes[device.id], workers) if nodes[device.id] > 1 else limit_mib)
        for device in assigned
    )


def spread(devices: Sequence[Device], supernodes: int) -> list[Device]:
    """Return the device of each node: each gets the device that then has the most memory per node."""
    nodes: Counter[str] = Counter()
    assigned = []
    for _ in range(supernodes):
        device = max(devices, key=lambda device: device.memory_mib / (nodes[device.id] + 1))
        nodes[device.id] += 1
        assigned.append(device)
    return assigned


def environment(share: Share | None) -> dict[str, str]:
    """Return the variables that bind a node's processes to its share; a share of None means the CPU.

    No variable limits TensorFlow, and one that limits PyTorch is new: `bouquet.executor.gpu_share` limits them.
    """
    if share is None:
        return {"CUDA_VISIBLE_DEVICES": "-1", GPU: "", GPU_MEMORY_MIB: ""}
    variables = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # number devices as nvidia-smi does
        "CUDA_VISIBLE_DEVICES": share.device.id,
        GPU: str(share.device),
        GPU_MEMORY_MIB: str(share.limit_mib or ""),
        # Allocate memory as needed; by default TensorFlow takes the whole device at its start, and JAX 75 %.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if share.limit_mib and share.device.memory_mib:
        # The older of two names, which all releases of JAX know. They refuse both together, unless one is empty.
        fraction = math.floor(10_000 * share.limit_mib / share.device.memory_mib) / 10_000
        variables |= {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{min(fraction, 1.0):.4f}", "XLA_CLIENT_MEM_FRACTION": ""}
    return variables


def describe_assigned(environment: Mapping[str, str]) -> str:
    """Return what a process with these variables computes on, for people."""
    if not (device := environment.get(GPU)):
        return "CPU"
    return device + _limited(environment.get(GPU_MEMORY_MIB))


def describe(shares: Iterable[Share]) -> list[str]:
    """Return the plan as lines, one per distinct share."""
    nodes: dict[Share, list[int]] = {}
    for partition_id, share in enumerate(shares):
        nodes.setdefault(share, []).append(partition_id)
    return [
        f"{share} (of {share.device.memory_mib} MiB): partition-id {', '.join(map(str, partition_ids))}"
        for share, partition_ids in nodes.items()
    ]


def summary(shares: Sequence[Share], why: str) -> list[str]:
    """Return lines for people: what the nodes compute on, and the reason."""
    if not shares:
        return [f"GPUs: none, the nodes compute on the CPU ({why})"]
    return [f"GPUs: {len({share.device for share in shares})} for {len(shares)} SuperNodes ({why})"] + [
        f"  {line}" for line in describe(shares)
    ]


def format_devices(devices: Iterable[Device]) -> str:
    """Return devices in the format of `GPUS`."""
    return ",".join(f"{device.id}:{device.memory_mib}MiB" for device in devices)


def parse_devices(name: str, text: str) -> tuple[Device, ...]:
    """Parse a list of devices with their memory, such as `0:24GiB,1:24GiB`.

    Raises:
        SettingError: An entry is malformed or has no memory size, or a device is listed twice.
    """
    devices = tuple(parse_device(name, entry.strip()) for entry in text.split(","))
    for device in devices:
        if not device.memory_mib:
            hint = f"give each device its memory, as in {_EXAMPLE}"
            raise SettingError(name, text, f"{device.id} has no memory size", hint)
    twice = [id_ for id_, count in Counter(device.id for device in devices).items() if count > 1]
    if twice:
        raise SettingError(name, text, f"{twice[0]} is listed twice", "list each device once")
    return devices


def parse_device(name: str, text: str) -> Device:
    """Parse one device, such as `1`, `1:4GiB` or `MIG-<uuid>:10GiB`; without a size it has 0 MiB."""
    if (match := _ENTRY.fullmatch(text)) is None or text.startswith("-"):
        hint = f"give auto, none, or devices with their memory, as in {_EXAMPLE} or GPUS=MIG-<uuid>:10GiB"
        raise SettingError(name, text, "not a device with a size in MiB or GiB", hint)
    return Device(match["id"], _mib(name, text, match["size"], match["unit"]) if match["size"] else 0)


def parse_memory(name: str, text: str) -> tuple[int | None, int | None]:
    """Parse a size or an equal part; return MiB and nodes, of which one is None.

    A size is for example `2GiB` or `700MiB`. An equal part is for example `1/20`, where 20 is the number of nodes.
    """
    if match := _PART.fullmatch(text):
        return None, int(match["nodes"])
    if match := _SIZE.fullmatch(text):
        return _mib(name, text, match["size"], match["unit"]), None
    hint = f"give for example {name}=2GiB, or {name}=1/20 for an equal part among 20 nodes"
    raise SettingError(name, text, "not a size in MiB or GiB", hint)


def _mib(name: str, text: str, size: str, unit: str) -> int:
    try:
        mib = int(float(size) * (1024 if unit.lower() == "gib" else 1))
    except ValueError:
        mib = 0
    if mib < 1:
        raise SettingError(name, text, f"{size} is not a size", "give a number greater than 0, as in 24GiB or 700MiB")
    return mib


def _limited(limit_mib: int | str | None) -> str:
    return f", at most {limit_mib} MiB per process" if limit_mib else ", all its memory"


def _part(device: Device, nodes: int, workers: int) -> int:
    return device.memory_mib // (nodes * workers) - CONTEXT_MIB


def _too_many(
    devices: Sequence[Device], device: Device, nodes: int, supernodes: int, workers: int, limit_mib: int | None
) -> SettingError:
    allocations = f"GPU_MEMORY={limit_mib}MiB" if limit_mib else f"at least {MIN_MIB} MiB"
    part = device.memory_mib // (nodes * workers)
    problem = (
        f"too many for the GPUs: {device} has {device.memory_mib} MiB, so {nodes} nodes x {workers} processes "
        f"(EXECUTOR_WORKERS) get {part} MiB each, but need {CONTEXT_MIB + (limit_mib or MIN_MIB)} MiB each: "
        f"{CONTEXT_MIB} MiB for CUDA and {allocations} for the framework"
    )
    hints = []
    if fit := _fitting(devices, workers, limit_mib):
        hints.append(f"run {fit} SuperNodes, which fit: SUPERNODES={fit}")
    if workers > 1 and _fitting(devices, 1, limit_mib) >= supernodes:
        hints.append("run one process per node, which fits: EXECUTOR_WORKERS=1")
    if limit_mib and _fitting(devices, workers, None) >= supernodes:
        hints.append("leave GPU_MEMORY out, for equal parts that fit")
    hints.append("compute on the CPU: GPUS=none")
    return SettingError("SUPERNODES", supernodes, problem, ", or ".join(hints))


def _fitting(devices: Sequence[Device], workers: int, limit_mib: int | None) -> int:
    need = (CONTEXT_MIB + (limit_mib or MIN_MIB)) * workers
    return sum(device.memory_mib // need for device in devices)
