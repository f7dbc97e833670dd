"""Whether builds and containers can read the files of this machine that they need."""

import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

from bouquet.contract.tls_files import CA, SERVER, SERVER_KEY
from bouquet.errors import SettingError
from bouquet.settings.host import PROJECT, HostSettings

CONTAINER_UID = CONTAINER_GID = 49999
READ, ENTER = 4, 1
"""Permissions as in a mode's digit."""
ACL = "system.posix_acl_access"
ACL_ENTRY = struct.Struct("<HHI")  # tag, permissions, id; after a version of four bytes
ACL_USER, ACL_MASK = 0x02, 0x10


def files_of_the_host(settings: HostSettings, environment: Mapping[str, str] = os.environ) -> str:
    """Check that containers can read the hub's token and the user's own certificates, and builds the CAs.

    Raises:
        SettingError: `HF_TOKEN_FILE`, or a file in `CERTIFICATES`, is not readable; or `SSL_CERT_FILE` is missing.
    """
    bundle = environment.get("SSL_CERT_FILE")
    if bundle and not (PROJECT / bundle).is_file():
        raise SettingError("SSL_CERT_FILE", bundle, "there is no such file", "correct it, or leave SSL_CERT_FILE out")
    checked = []
    if settings.hub_token is not None:
        check_readable_by_containers("HF_TOKEN_FILE", settings.hub_token)
        checked.append("HF_TOKEN_FILE")
    if (folder := settings.certificates.user_dir) is not None:
        for path in (folder, *(folder / name for name in (CA, SERVER, SERVER_KEY))):
            check_readable_by_containers("CERTIFICATES", path)
        checked.append("CERTIFICATES")
    return f"readable in containers: {', '.join(checked)}" if checked else "none are set"


def check_readable_by_containers(name: str, path: Path) -> None:
    """Check that containers can read a file, or enter and list a folder, that is mounted into them.

    Args:
        name: The setting that names the file or its folder.
        path: The file or folder. The folders above it do not matter, because Docker mounts it as root.

    Raises:
        SettingError: They cannot.
    """
    if not is_readable_by_containers(path):
        mode = stat.filemode(path.stat().st_mode)
        wanted = "rx" if path.is_dir() else "r"
        raise SettingError(
            name,
            path,
            f"the containers' user, uid {CONTAINER_UID}, cannot read it (mode {mode})",
            f"let that user read it: setfacl -m u:{CONTAINER_UID}:{wanted} '{path}', or everyone: "
            f"chmod o+{wanted} '{path}'",
        )


def is_readable_by_containers(path: Path) -> bool:
    """Return whether uid 49999 may read a file, or list and enter a folder, by its owner, mode and ACL."""
    status = path.stat()
    needed = READ | ENTER if stat.S_ISDIR(status.st_mode) else READ
    if status.st_uid == CONTAINER_UID:
        return allows(status.st_mode >> 6, needed)
    acl = acl_entries(path)
    users = [permissions for tag, permissions, who in acl if tag == ACL_USER and who == CONTAINER_UID]
    if users:
        mask = next((permissions for tag, permissions, _ in acl if tag == ACL_MASK), READ | ENTER)
        return allows(users[0] & mask, needed)
    return allows(status.st_mode >> 3 if status.st_gid == CONTAINER_GID else status.st_mode, needed)


def allows(permissions: int, needed: int) -> bool:
    """Return whether the permissions include all that are needed."""
    return permissions & needed == needed


def acl_entries(path: Path) -> list[tuple[int, int, int]]:
    """Return tag, permissions and id of each entry of a path's access control list; none if it has no list."""
    try:
        value = os.getxattr(path, ACL)
    except OSError:  # no list, or a file system without them
        return []
    return list(ACL_ENTRY.iter_unpack(value[4:]))
