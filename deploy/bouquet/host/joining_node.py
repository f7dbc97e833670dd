"""A SuperNode that is about to join from another machine, whatever runs it there."""

from dataclasses import dataclass

DATA = "/var/lib/bouquet"
PROBE = ("python3", "-I", "-S", "/opt/bouquet/lib/bouquet/contract/readiness.py")
"""The probe, which holds; with the argument 0 it answers at once."""


@dataclass(frozen=True)
class JoiningNode:
    """A node that is enrolled.

    Attributes:
        name: Its name; containers, volumes and Kubernetes' objects are called `bouquet-<name>`.
        key: Its private key, in PEM.
        root_certificate: The CA's certificate, in PEM.
        image: The image of a SuperNode.
        superlink: Address of the Fleet API.
        partition_id: The partition that it is pinned to; None: the SuperLink chooses.
        node_config: Further keys of its node config, as in NODE_CONFIG.
    """

    name: str
    key: bytes
    root_certificate: bytes
    image: str
    superlink: str
    partition_id: int | None = None
    node_config: str = ""

    def environment(self) -> dict[str, str]:
        """Return the variables of its container; none is secret."""
        return {
            "SUPERLINK": self.superlink,
            "BOUQUET_JOINED": "1",
            "BOUQUET_DATASET_FALLBACK": "/opt/bouquet/data/cifar10-sample",
            "BOUQUET_CACHE_DIR": f"{DATA}/cache",
            **({} if self.partition_id is None else {"PARTITION_ID": str(self.partition_id)}),
            **({"NODE_CONFIG": self.node_config} if self.node_config else {}),
        }
