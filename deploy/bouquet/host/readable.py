"""Whether the fleet can read a file or folder of the user's: its modes, and where its links lead."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bouquet.errors import SettingError

CONTAINER_UID = 49999
"""The containers' uid and gid; they have no other groups."""
FIRST_SUBORDINATE_ID = 65536
"""Rootless Docker and userns-remap map the ids of containers to ids from here on."""
ACL = "system.posix_acl_access"


@dataclass(frozen=True)
class Reader:
    """Who reads the files.

    Attributes:
        in_container: Whether a container's user reads them through a bind mount; otherwise the current user.
        maps_uids: Whether Docker maps the container's ids to other ids of the machine.
        modes_apply: Whether the modes on this machine apply in the container. They do not with Docker Desktop.
    """

    in_container: bool
    maps_uids: bool = False
    modes_apply: bool = True

    def __str__(self) -> str:
        """Return the reader's name, for messages."""
        return f"the containers' user (uid {CONTAINER_UID})" if self.in_container else f"uid {os.getuid()}"

    def may_read(self, path: Path) -> bool:
        """Whether the reader may read this file, or list and enter this folder. The folders above do not count."""
        if not self.in_container:
            return os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK)  # noqa: PTH112  no error
        try:
            status = path.stat()
        except OSError:  # the current user cannot look: then the containers' user may
            return True
        if not self.modes_apply:
            return True
        if self.maps_uids and max(status.st_uid, status.st_gid) >= FIRST_SUBORDINATE_ID:
            return True  # it may be the mapped id
        needed = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
        if status.st_uid == CONTAINER_UID and not self.maps_uids:
            granted = status.st_mode >> 6
        elif status.st_gid == CONTAINER_UID and not self.maps_uids:
            granted = status.st_mode >> 3
        else:
            granted = status.st_mode
        return granted & needed == needed or _has_acl(path)


def check_readable(setting: str, path: Path, reader: Reader, pattern: str = "*", *, secret: bool = False) -> None:
    """Check that a reader can read a file, or a folder's files and the folders on the way to them.

    In a container, a folder is mounted at another path: so a link must be relative, and lead to a file in the folder.
    The folders above the path do not count, because Docker mounts it as root.

    Args:
        setting: The setting that names the path, for the error.
        path: The file or folder.
        reader: Who reads it.
        pattern: Which files of a folder are read: by name in all its folders, or one file in the folder itself. Others
            may be unreadable.
        secret: Whether the hint must keep the file from other users.

    Raises:
        SettingError: The reader cannot read one of them; the error has its path and mode.
    """
    checked: set[Path] = set()
    for each in _files(path, pattern):
        for step in _steps(path, each):
            if step in checked:
                continue
            checked.add(step)
            if step.is_symlink() and step != path:
                _check_link(setting, path, step, reader)
            if not reader.may_read(step):
                problem = f"{reader} cannot read {step} ({_mode(step)})"
                raise SettingError(setting, path, problem, _hint(path, step, reader, secret=secret))


def _files(path: Path, pattern: str) -> Iterator[Path]:
    """Yield the path itself, the files in it that match, and for `*` the folders that this user cannot list."""
    yield path
    if "*" not in pattern:
        if os.path.lexists(path / pattern):
            yield path / pattern
        return
    unlisted: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=lambda error: unlisted.append(Path(error.filename))):
        folders.sort()
        here = Path(folder)
        for name in folders:
            if (here / name).is_symlink():  # os.walk does not enter it
                yield from sorted((here / name).rglob(pattern))
        yield from (here / name for name in sorted(names) if Path(name).match(pattern))
    if pattern == "*":
        yield from (folder for folder in unlisted if folder.name != "lost+found")


def _steps(path: Path, file: Path) -> Iterator[Path]:
    """Yield the path itself, then the folders down to a file in it, and the file."""
    yield path
    step = path
    for part in file.relative_to(path).parts:
        step /= part
        yield step


def _check_link(setting: str, root: Path, link: Path, reader: Reader) -> None:
    target = link.readlink()
    inside = Path(os.path.normpath(link.parent.relative_to(root) / target))
    leads_out = inside.is_absolute() or os.pardir in inside.parts
    if reader.in_container and leads_out:
        problem = f"the link {link} leads out of the folder, to {target}: inside a container it leads nowhere"
    elif not link.exists():
        problem = f"the link {link} leads to {target}, which does not exist"
    else:
        return
    raise SettingError(setting, root, problem, f"give a copy without links: cp -rL {root} COPY; {setting}=COPY")


def _hint(path: Path, step: Path, reader: Reader, *, secret: bool) -> str:
    if not reader.in_container:
        return f"give yourself access: sudo chown -R {os.getuid()} {path}"
    if secret:
        return f"let its group read it: sudo chgrp {CONTAINER_UID} {step}; sudo chmod g+rX {step}"
    return f"let all users read it: chmod -R a+rX {path}"


def _mode(path: Path) -> str:
    try:
        return f"mode {stat.S_IMODE(path.stat().st_mode):04o}"
    except OSError as error:
        return str(error.strerror)


def _has_acl(path: Path) -> bool:
    """Whether an access control list may grant more than the mode shows."""
    with suppress(OSError):
        return bool(os.getxattr(path, ACL))
    return False
