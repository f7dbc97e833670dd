"""What the entry points of containers share."""

import os
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn


def exec_module(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `python -P -m <module> <arguments>`, which keeps its process id and its file locks.

    `-P` keeps the current directory off the module search path: an app may have a package of any name.
    """
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606  a list, no shell


def resolve_port(address: str) -> str:
    """Return `address` with port 0 replaced by a free port, for Flower and its executor to agree on."""
    host, _, port = address.rpartition(":")
    if port != "0":
        return address
    with socket.socket() as free:
        free.bind((host, 0))
        return f"{host}:{free.getsockname()[1]}"
