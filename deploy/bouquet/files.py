"""The one way to write a file: readers see the old content or the new content, never a part of either."""

import os
from contextlib import suppress


def write_atomically(path: str | os.PathLike[str], content: bytes, mode: int = 0o644, *, durable: bool = False) -> None:
    """Write a file, or replace it.

    It writes a temporary file in the same folder and renames it. The function is called for every message, so it uses
    `os` directly: pathlib costs more than the file.

    Args:
        path: The file. Its folder must exist.
        content: All of its bytes.
        mode: Permissions of the file, before the umask.
        durable: Whether the content must survive a power failure, at the price of a wait for the disk.

    Raises:
        OSError: The file cannot be written; no temporary file is left behind.
    """
    path = os.fspath(path)
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name}.{os.getpid()}.new" if folder else f".{name}.{os.getpid()}.new"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
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
    """Write a file durably, with its folders; leave it alone where it has this content already.

    Raises:
        OSError: The file cannot be written.
    """
    with suppress(FileNotFoundError), open(path, "rb") as file:  # noqa: PTH123
        if file.read() == content:
            return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
    write_atomically(path, content, mode, durable=True)
