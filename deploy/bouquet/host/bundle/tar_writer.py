"""Writes a tar file whose members may be streams of unknown length, with the SHA-256 of each."""

import hashlib
import tarfile
import time
from collections.abc import Iterable
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE


class TarWriter:
    """A tar file that is being written. All members are in one folder.

    A member's header has its length. `tarfile` needs to know it before the content; here the header is written again
    after the content, so that images go from Docker into the file without a copy on disk.
    """

    def __init__(self, file: BinaryIO, folder: str) -> None:
        """Start at the beginning of an empty file.

        Args:
            file: A file that can be written and sought.
            folder: Name of the folder that all members are in.
        """
        self._file = file
        self._folder = folder
        self._time = int(time.time())
        self._checksums: list[str] = []

    def add(self, name: str, content: bytes | Iterable[bytes], mode: int = 0o644, *, checksum: bool = True) -> None:
        """Add a file.

        Args:
            name: Its path in the folder.
            content: All of its bytes, or an iterable of parts.
            mode: Its permissions.
            checksum: Whether it goes on the list of checksums.

        Raises:
            OSError: The tar file cannot be written.
        """
        parts = [content] if isinstance(content, bytes) else content
        start = self._file.tell()
        self._header(name, mode)
        digest, size = hashlib.sha256(), 0
        for part in parts:
            self._file.write(part)
            digest.update(part)
            size += len(part)
        self._file.write(bytes(-size % BLOCK))
        end = self._file.tell()
        self._file.seek(start)
        self._header(name, mode, size=size)
        self._file.seek(end)
        if checksum:
            self._checksums.append(f"{digest.hexdigest()}  {name}\n")

    def add_folder(self, name: str) -> None:
        """Add an empty folder."""
        self._header(name, 0o755, kind=tarfile.DIRTYPE)

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._header(name, 0o777, kind=tarfile.SYMTYPE, target=target)

    def checksums(self) -> bytes:
        """Return the list of the checksums of all files so far, as `sha256sum` writes and checks it."""
        return "".join(self._checksums).encode()

    def close(self) -> None:
        """Write the end of the tar file."""
        self._file.write(bytes(2 * BLOCK))

    def _header(self, name: str, mode: int, *, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
        member = tarfile.TarInfo(f"{self._folder}/{name}")
        member.mode, member.size, member.type, member.linkname, member.mtime = mode, size, kind, target, self._time
        # GNU's format has a header of the same length for every size, also beyond 8 GiB.
        self._file.write(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
