"""Checks before a start, so that a start that cannot succeed is refused with one line."""

import shutil
import socket
from pathlib import Path

from bouquet.errors import HostError, SettingError
from bouquet.settings.env import MAX_PORT
from bouquet.settings.host import HostSettings

GIB = 1024**3
NEEDED_GIB = 5
"""GiB of free disk space for the images, or the Python environment, and a first run."""


def check_ports(settings: HostSettings) -> None:
    """Check that the ports that the fleet will publish are free. Call it only while the fleet is down.

    Raises:
        SettingError: A port is in use.
    """
    for name, port in (("CONTROL_PORT", settings.control_port), ("FLEET_PORT", settings.fleet_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                another = port + 10000 if port + 10000 <= MAX_PORT else port - 10000
                raise SettingError(
                    name,
                    port,
                    f"cannot be used ({error.strerror})",
                    f"stop the program that uses it, or give another: {name}={another}",
                ) from error


def check_disk(folder: Path, needed: int = NEEDED_GIB * GIB) -> None:
    """Check the free space of the disk that holds a folder.

    Args:
        folder: Any folder on the disk.
        needed: Bytes that must be free.

    Raises:
        HostError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HostError(
            f"disk under {folder}: {free / GIB:.1f} GiB free, {needed / GIB:.0f} GiB needed",
            "free some space, for example with: docker system prune",
        )
