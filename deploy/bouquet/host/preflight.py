"""Checks before anything is started, so that what cannot work is refused in one line."""

import shutil
import socket
from pathlib import Path

from bouquet.errors import HostError, SettingError
from bouquet.settings.host import HostSettings

GIB = 1024**3
NEEDED_GIB = 5
"""Free space that images, or the environment, and a first run need."""


def check_ports(settings: HostSettings) -> None:
    """Raise `SettingError` where a port that the fleet will publish is taken; call it while the fleet is down."""
    for name, port in (("CONTROL_PORT", settings.control_port), ("FLEET_PORT", settings.fleet_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise SettingError(
                    name,
                    port,
                    f"cannot be used ({error.strerror})",
                    f"stop what uses it, or give another: {name}={port + 10000}",
                ) from error


def check_disk(folder: Path, needed: int = NEEDED_GIB * GIB) -> None:
    """Raise `HostError` where the disk under `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HostError(
            f"disk under {folder}: {free / GIB:.1f} GiB free, {needed / GIB:.0f} GiB needed",
            "free some, for example with: docker system prune",
        )
