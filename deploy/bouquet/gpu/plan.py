"""Which GPU each SuperNode computes on, and how much of its memory it may take: arithmetic, nothing else.

A node's process takes two kinds of GPU memory: CUDA's context, which no setting bounds, and what TensorFlow allocates,
which a limit bounds. A node has up to EXECUTOR_WORKERS processes at a time. So a device that n nodes share is cut
into n x workers equal parts, and TensorFlow gets what a context leaves of one (docs/decisions/0013-gpu-plan.md).

The same list gives the same plan everywhere, so every replica works out its own share from its partition-id, and a
node's device does not depend on how many come after it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bouquet.errors import SettingError

CONTEXT_MIB = 512
"""Memory that CUDA and its libraries take for each process, beside TensorFlow's."""
LEAST_MIB = 512
"""Less than this is of no use to TensorFlow."""

_ENTRY = re.compile(r"(?P<id>[\w/-]+)(?::(?P<size>[\d.]+) ?(?P<unit>GiB|MiB))?", re.IGNORECASE)
_SIZE = re.compile(r"(?P<size>[\d.]+) ?(?P<unit>GiB|MiB)", re.IGNORECASE)
_PART = re.compile(r"1/(?P<nodes>[1-9]\d{0,3})")
_EXAMPLE = "GPUS=0:24GiB,1:24GiB"


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG slice of one."""

    id: str
    """As CUDA_VISIBLE_DEVICES takes it: the number that nvidia-smi shows, or a UUID."""
    memory_mib: int
    name: str = ""

    def __str__(self) -> str:
        label = self.id if self.id.startswith(("GPU-", "MIG-")) else f"GPU {self.id}"
        return f"{label} ({self.name})" if self.name else label


@dataclass(frozen=True)
class Share:
    """What one node gets."""

    device: Device
    limit_mib: int | None
    """What TensorFlow may allocate in each process; None: as much as it needs of a device that is the node's alone."""

    def __str__(self) -> str:
        return str(self.device) + _limited(self.limit_mib)


def plan(devices: Sequence[Device], supernodes: int, workers: int, limit_mib: int | None = None) -> tuple[Share, ...]:
    """Spread nodes over devices.

    Parameters
    ----------
    devices : Sequence[Device]
        What there is, at least one.
    supernodes : int
        How many nodes share them.
    workers : int
        How many processes a node may have at a time.
    limit_mib : int | None
        What TensorFlow may allocate in each process; None: an equal part.

    Returns
    -------
    tuple[Share, ...]
        A share for each partition-id.

    Raises
    ------
    SettingError
        A share is too small to be of use.
    """
    placed = spread(devices, supernodes)
    nodes = Counter(device.id for device in placed)
    need = CONTEXT_MIB + (limit_mib or LEAST_MIB)
    for device in devices:
        if nodes[device.id] and device.memory_mib // (nodes[device.id] * workers) < need:
            raise _too_many(devices, device, nodes[device.id], supernodes, workers, limit_mib)
    return tuple(
        Share(device, limit_mib or _part(device, nodes[device.id], workers) if nodes[device.id] > 1 else limit_mib)
        for device in placed
    )


def spread(devices: Sequence[Device], supernodes: int) -> list[Device]:
    """Return the device of each node: the next node goes where most memory is left for it, so each to its size."""
    nodes: Counter[str] = Counter()
    placed = []
    for _ in range(supernodes):
        device = max(devices, key=lambda device: device.memory_mib / (nodes[device.id] + 1))
        nodes[device.id] += 1
        placed.append(device)
    return placed


def environment(share: Share | None) -> dict[str, str]:
    """Return the variables that bind a node's processes to its share; None: to the CPU."""
    if share is None:
        return {"CUDA_VISIBLE_DEVICES": "-1", "BOUQUET_GPU": "", "BOUQUET_GPU_MEMORY_MIB": ""}
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA's own numbers are not nvidia-smi's
        "CUDA_VISIBLE_DEVICES": share.device.id,
        "BOUQUET_GPU": str(share.device),
        "BOUQUET_GPU_MEMORY_MIB": str(share.limit_mib or ""),
        # Any TensorFlow app then takes memory as it needs it, not the whole device at its start.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


def describe_assigned(environment: Mapping[str, str]) -> str:
    """Return what a process with these variables was given."""
    if not (device := environment.get("BOUQUET_GPU")):
        return "CPU"
    return device + _limited(environment.get("BOUQUET_GPU_MEMORY_MIB"))


def describe(shares: Iterable[Share]) -> list[str]:
    """Return the plan as lines, one for each device that has nodes."""
    nodes: dict[Share, list[int]] = {}
    for partition_id, share in enumerate(shares):
        nodes.setdefault(share, []).append(partition_id)
    return [
        f"{share} (of {share.device.memory_mib} MiB): partition-id {', '.join(map(str, partition_ids))}"
        for share, partition_ids in nodes.items()
    ]


def summary(shares: Sequence[Share], why: str) -> list[str]:
    """Return the lines that say what the nodes compute on, and why."""
    if not shares:
        return [f"GPUs: none, the nodes compute on the CPU ({why})"]
    return [f"GPUs: {len({share.device for share in shares})} for {len(shares)} SuperNodes ({why})"] + [
        f"  {line}" for line in describe(shares)
    ]


def listed(devices: Iterable[Device]) -> str:
    """Return devices as `GPUS` takes them."""
    return ",".join(f"{device.id}:{device.memory_mib}MiB" for device in devices)


def parse_devices(name: str, text: str) -> tuple[Device, ...]:
    """Read a list given by hand, such as `0:24GiB,1:24GiB`, where each device needs its size.

    Raises
    ------
    SettingError
        An entry is no device with a size, or a device comes twice.
    """
    devices = tuple(parse_device(name, entry.strip()) for entry in text.split(","))
    for device in devices:
        if not device.memory_mib:
            raise SettingError(name, text, f"{device.id} has no size", f"give each its memory, as in {_EXAMPLE}")
    twice = [id_ for id_, count in Counter(device.id for device in devices).items() if count > 1]
    if twice:
        raise SettingError(name, text, f"{twice[0]} comes twice", "name each device once")
    return devices


def parse_device(name: str, text: str) -> Device:
    """Read one device, such as `1`, `1:4GiB` or `MIG-<uuid>:10GiB`; without a size it has 0 MiB."""
    if (match := _ENTRY.fullmatch(text)) is None or text.startswith("-"):
        hint = f"give auto, none, or devices with their memory, as in {_EXAMPLE} or GPUS=MIG-<uuid>:10GiB"
        raise SettingError(name, text, "no device with a size in MiB or GiB", hint)
    return Device(match["id"], _mib(name, text, match["size"], match["unit"]) if match["size"] else 0)


def parse_memory(name: str, text: str) -> tuple[int | None, int | None]:
    """Read a size, such as `2GiB` or `700MiB`, as MiB, or an equal part, such as `1/20`, as its number of nodes."""
    if match := _PART.fullmatch(text):
        return None, int(match["nodes"])
    if match := _SIZE.fullmatch(text):
        return _mib(name, text, match["size"], match["unit"]), None
    hint = f"give for example {name}=2GiB, or {name}=1/20 for the part that each of 20 nodes would have"
    raise SettingError(name, text, "no size in MiB or GiB", hint)


def _mib(name: str, text: str, size: str, unit: str) -> int:
    try:
        mib = int(float(size) * (1024 if unit.lower() == "gib" else 1))
    except ValueError:
        mib = 0
    if mib < 1:
        raise SettingError(name, text, f"{size} is no size", "give a number over 0, as in 24GiB or 700MiB")
    return mib


def _limited(limit_mib: int | str | None) -> str:
    return f", at most {limit_mib} MiB a process" if limit_mib else ", whole"


def _part(device: Device, nodes: int, workers: int) -> int:
    return device.memory_mib // (nodes * workers) - CONTEXT_MIB


def _too_many(
    devices: Sequence[Device], device: Device, nodes: int, supernodes: int, workers: int, limit_mib: int | None
) -> SettingError:
    asked = f"GPU_MEMORY={limit_mib}MiB" if limit_mib else f"at least {LEAST_MIB} MiB"
    part = device.memory_mib // (nodes * workers)
    problem = (
        f"too many for the GPUs: {device} has {device.memory_mib} MiB, and {nodes} nodes x {workers} processes "
        f"(EXECUTOR_WORKERS) make {part} MiB each; CUDA takes {CONTEXT_MIB} of that, TensorFlow needs {asked}, "
        f"together {CONTEXT_MIB + (limit_mib or LEAST_MIB)} MiB"
    )
    mends = []
    if fit := _fitting(devices, workers, limit_mib):
        mends.append(f"{fit} fit: SUPERNODES={fit}")
    if workers > 1 and _fitting(devices, 1, limit_mib) >= supernodes:
        mends.append("a process a node fits: EXECUTOR_WORKERS=1")
    if limit_mib and limit_mib > LEAST_MIB:
        mends.append(f"give less: GPU_MEMORY={LEAST_MIB}MiB")
    mends.append("compute on the CPU: GPUS=none")
    return SettingError("SUPERNODES", supernodes, problem, ", or ".join(mends))


def _fitting(devices: Sequence[Device], workers: int, limit_mib: int | None) -> int:
    need = (CONTEXT_MIB + (limit_mib or LEAST_MIB)) * workers
    return sum(device.memory_mib // need for device in devices)
