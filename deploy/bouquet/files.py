"""The one way to write a file: a reader sees the old content or the new content, never a part of either."""

import os
import stat
from contextlib import suppress

TEMPORARY_SUFFIX = ".new"
"""Ends the name of a file that is being written. A process that is killed meanwhile leaves it behind."""


def write_atomically(
    path: str | os.PathLike[str],
    content: bytes,
    mode: int = 0o644,
    *,
    durable: bool = False,
    like: os.stat_result | None = None,
) -> None:
    """Write a file, or replace it, by renaming a temporary file in the same folder.

    Threads, processes and containers may write the same path at the same time: one of them wins. The SuperLink calls
    this for every message, so it uses `os`: pathlib takes longer than writing the file.

    Args:
        path: The file. Its folder must exist.
        content: All of its bytes.
        mode: Permissions of the file, before the umask.
        durable: Whether the content must survive a power failure. Waits for the disk.
        like: The file gets the permissions of this one, whatever `mode` and the umask say, and its owner where this
            process may give files away.

    Raises:
        OSError: The file cannot be written. An old file is left as it is, and no temporary file remains.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}{TEMPORARY_SUFFIX}")  # noqa: PTH118
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        try:
            if like is not None:
                with suppress(PermissionError):
                    os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
            rest = memoryview(content)
            while rest:  # one call writes at most 2 GiB
                rest = rest[os.write(descriptor, rest) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)  # noqa: PTH104
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def write_if_changed(path: str | os.PathLike[str], content: bytes, mode: int = 0o644) -> None:
    """Write a file durably, and create its folders; leave it alone if it has this content already.

    Args:
        path: The file.
        content: All of its bytes.
        mode: Permissions of a file that is written, before the umask.

    Raises:
        OSError: The file cannot be read or written.
    """
    with suppress(FileNotFoundError), open(path, "rb") as file:  # noqa: PTH123
        if file.read() == content:
            return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
    write_atomically(path, content, mode, durable=True)


def write_users_file(path: str | os.PathLike[str], content: bytes, mode: int = 0o644) -> None:
    """Write a file of the user's durably: a symbolic link stays a link, a file keeps its permissions and its owner.

    Args:
        path: The file, or a link to it. Missing folders are created.
        content: All of its bytes. A file that has them already is left alone.
        mode: Permissions of a new file, before the umask.

    Raises:
        OSError: The file cannot be read or written.
    """
    target = os.path.realpath(path)
    try:
        with open(target, "rb") as file:  # noqa: PTH123
            before = os.fstat(file.fileno())
            if file.read() == content:
                return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        write_atomically(target, content, mode, durable=True)
    else:
        write_atomically(target, content, durable=True, like=before)
