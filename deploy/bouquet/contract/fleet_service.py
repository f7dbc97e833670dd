"""The gRPC service `bouquet.Fleet` at the Control API's address: what Flower's API has no call for. Messages are JSON.

`Describe` returns `num-partitions`, and for each of `nodes`: `node-id`, `name` (empty if it was given none),
`partition-id` (None if it holds none), `kind` (`local`, `slot` or `joined`; empty before its first call) and `online`.
`NameNode` gets `node-id` and `name`. A node's id is text: it has 64 bits, too many for a number in JSON.
"""

import json
import re
from typing import Any

SERVICE = "bouquet.Fleet"
DESCRIBE, NAME_NODE = "Describe", "NameNode"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""What a node may be called: the name is a part of the names of containers, volumes and Kubernetes' objects."""


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as it is sent."""
    return json.dumps(message).encode("ascii")


def decode(content: bytes) -> dict[str, Any]:
    """Return a message that was received."""
    message: dict[str, Any] = json.loads(content)
    return message
