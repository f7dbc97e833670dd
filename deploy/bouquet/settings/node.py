"""Settings of a SuperNode: of its entry point, and of the process that serves after it has acquired a partition."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bouquet.contract.keys import SEED_FILE
from bouquet.errors import SettingError
from bouquet.gpu.plan import describe_assigned
from bouquet.settings.env import (
    MAX_SUPERNODES,
    Directories,
    Environment,
    choice,
    hub_cache,
    is_insecure,
    size_file,
    supernodes,
    text,
    whole_number,
)
from bouquet.settings.gpu_settings import GpuSettings
from bouquet.settings.node_config_settings import NodeConfigSettings

PARTITION_ID, PARTITION_PINNED = "BOUQUET_PARTITION_ID", "BOUQUET_PARTITION_PINNED"
"""The variables by which the entry point passes the partition to the serving process."""
SLOT = "BOUQUET_SLOT"
"""The variable by which it passes the slot of a node in a cluster."""


@dataclass(frozen=True)
class SuperNodeSettings:
    """Settings of a SuperNode's entry point.

    Attributes:
        supernodes: The fleet's size, if there is no `size_file`.
        size_file: The file with the fleet's size, which may change.
        partition_id: The partition that this SuperNode is pinned to; None for any free one.
        partition_id_source: The setting that `partition_id` comes from.
        slot: The node's slot in a cluster, from 0; None outside of a cluster.
        seed_file: The file with the secret from which a node in a cluster derives its key.
        ca_file: The file with the CA's certificate, in a cluster.
        joined: Whether the node has joined a fleet on another machine.
        superlink: Address of the SuperLink's Fleet API.
        superlink_max_wait: Seconds that the node tries to reach the SuperLink.
        dataset: Folder with the node's own data.
        node_config: Further keys of the node config.
        hub_cache: The folder of HF_CACHE, and `HF_HOME`.
        threads: TensorFlow's threads; None for the node's share of the cores.
        gpus: What the nodes compute on.
        runtime_address: Where the Runtime API listens, for the executor.
        insecure: Neither TLS nor a key.
        directories: Where its files are.
    """

    supernodes: int
    size_file: Path | None
    partition_id: int | None
    partition_id_source: str
    slot: int | None
    seed_file: Path | None
    ca_file: Path | None
    joined: bool
    superlink: str
    superlink_max_wait: int
    dataset: str | None
    node_config: NodeConfigSettings
    hub_cache: tuple[Path | None, Path | None]
    threads: int | None
    gpus: GpuSettings
    runtime_address: str
    insecure: bool
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        file = size_file(environment)
        joined = choice(environment, "BOUQUET_JOINED", ("0", "1")) == "1"
        size = MAX_SUPERNODES if file or joined else supernodes(environment)
        partition_id, source = _pinned_partition(environment, size, joined=joined)
        seed, ca = (text(environment, name, "") for name in (SEED_FILE, "BOUQUET_CA_FILE"))
        if (seed or joined) and choice(environment, "EXECUTOR", ("warm", "stock")) == "stock":
            raise SettingError(
                "EXECUTOR",
                "stock",
                "Flower's own executor does not learn its partition from the SuperLink",
                "leave EXECUTOR out, or run the whole fleet on one machine",
            )
        slot = _slot(environment)[0]
        if seed and slot is None:
            raise SettingError(
                SEED_FILE,
                seed,
                "this node has no slot in a cluster, so it can derive no key",
                "set TASK_SLOT={{.Task.Slot}} in a Swarm service, or run it in a StatefulSet of Kubernetes",
            )
        keys = text(environment, "BOUQUET_NODE_CONFIG_FILE", "")
        return cls(
            supernodes=size,
            size_file=file,
            partition_id=partition_id,
            partition_id_source=source,
            slot=slot if seed else None,
            seed_file=Path(seed) if seed else None,
            ca_file=Path(ca) if ca else None,
            joined=joined,
            superlink=text(environment, "SUPERLINK", "superlink:9092"),
            superlink_max_wait=whole_number(environment, "SUPERLINK_MAX_WAIT", 300, 1, 86400),
            dataset=text(environment, "BOUQUET_DATASET", "") or None,
            node_config=NodeConfigSettings.read(environment, Path(keys) if keys else None),
            hub_cache=hub_cache(environment),
            threads=whole_number(environment, "TF_THREADS", 1, 1, 1024)
            if text(environment, "TF_THREADS", "")
            else None,
            gpus=GpuSettings.read(environment),
            runtime_address=text(environment, "RUNTIME_ADDRESS", "127.0.0.1:9094"),
            insecure=is_insecure(environment),
            directories=Directories.read(environment),
        )


@dataclass(frozen=True)
class ServingNodeSettings:
    """Settings of a SuperNode's serving process; the entry point sets the first three, and the slot.

    Attributes:
        partition_id: The partition that the node holds.
        pinned: Whether it must hold this very partition, so that it yields to no other node.
        slot: Its slot in a cluster, from 0; None outside of a cluster.
        joined: Whether the node has joined a fleet on another machine.
        device: What the node's apps compute on, as shown to people.
        size_file: The file with the fleet's size; None if the size does not change.
        directories: Where its files are.
    """

    partition_id: int
    pinned: bool
    slot: int | None
    joined: bool
    device: str
    size_file: Path | None
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings."""
        return cls(
            partition_id=int(text(environment, PARTITION_ID, "0")),
            pinned=text(environment, PARTITION_PINNED, "0") == "1",
            slot=int(slot) if (slot := text(environment, SLOT, "")) else None,
            joined=text(environment, "BOUQUET_JOINED", "0") == "1",
            device=describe_assigned(environment),
            size_file=size_file(environment),
            directories=Directories.read(environment),
        )


def _pinned_partition(environment: Environment, supernodes: int, *, joined: bool) -> tuple[int | None, str]:
    """Return the partition-id that this SuperNode is pinned to, and its setting; None for any free partition.

    In order of precedence: PARTITION_ID, Swarm's task slot (which starts at 1), a Kubernetes StatefulSet's ordinal. The
    slot of a joined node belongs to an engine of another site, and says nothing about this fleet's partitions.
    """
    if text(environment, "PARTITION_ID", ""):
        return whole_number(environment, "PARTITION_ID", 0, 0, supernodes - 1), "PARTITION_ID"
    slot, source = (None, "") if joined else _slot(environment)
    return slot, source or "PARTITION_ID"


def _slot(environment: Environment) -> tuple[int | None, str]:
    """Return a node's slot in a cluster, from 0, and its setting: Swarm's task slot, or a pod's ordinal."""
    # Compose does not expand Swarm's template, so its text is not a slot.
    if not environment.get("TASK_SLOT", "{{").startswith("{{") and text(environment, "TASK_SLOT", ""):
        return whole_number(environment, "TASK_SLOT", 1, 1, MAX_SUPERNODES) - 1, "TASK_SLOT"
    if text(environment, "KUBERNETES_SERVICE_HOST", ""):
        pod = text(environment, "POD_NAME", "") or text(environment, "HOSTNAME", "")
        # At most four digits: the random suffix of a Deployment's pod has five characters, which may all be digits.
        if ordinal := re.search(r"-(\d{1,4})$", pod):
            return int(ordinal[1]), "POD_NAME"
    return None, ""
