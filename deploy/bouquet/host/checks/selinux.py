"""Whether SELinux lets containers read the files that are mounted into them."""

import os
from contextlib import suppress
from pathlib import Path

from bouquet.errors import HostError
from bouquet.host.docker_info import DockerInfo
from bouquet.settings.host import PROJECT, HostSettings

READABLE_TYPES = ("container_file_t", "container_ro_file_t", "container_share_t", "svirt_sandbox_file_t")
"""Types of files that SELinux's policy lets containers read."""


def selinux(docker: DockerInfo, settings: HostSettings) -> str:
    """Check the labels of the mounted files where SELinux confines containers.

    Bouquet does not relabel files itself (`bind: {selinux: z}`): they are the user's, and other programs use them.

    Raises:
        HostError: Containers cannot read a mounted file.
    """
    if not docker.has_selinux:
        return "SELinux does not confine containers"
    wrong = [path for path in mounted(settings) if label_type(path) not in ("", *READABLE_TYPES)]
    if wrong:
        names = " ".join(map(str, wrong))
        raise HostError(
            f"SELinux: containers cannot read {names} ({label_type(wrong[0])})",
            f"relabel: chcon -R -t container_file_t {names} (undo: restorecon -R), or see docs/operations.md, SELinux",
        )
    return "SELinux lets containers read the mounted files"


def mounted(settings: HostSettings) -> list[Path]:
    """Return the user's files that containers read through a mount."""
    token = settings.hub_token or PROJECT / "deploy" / "compose" / "empty"
    named = (settings.dataset, settings.certificates.user_dir, token, settings.hf_cache, settings.node_config.file)
    return [path for path in named if path is not None]


def label_type(path: Path) -> str:
    """Return the type in a file's SELinux label, as `ls -Z` shows it; empty where there is no label."""
    with suppress(OSError, IndexError):
        return os.getxattr(path, "security.selinux").decode().rstrip("\0").split(":")[2]
    return ""
