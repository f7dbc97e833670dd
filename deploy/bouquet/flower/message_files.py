"""Files that outlive a SuperLink process that crashes, for the process that replaces it.

Small files are on a tmpfs of the container, so that none waits for a disk. Large ones are on a volume: they cost page
cache, which the kernel can take back, instead of memory. Both end with the container: what must outlive it is in the
database.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from bouquet.files import TEMPORARY_SUFFIX, write_atomically

LARGE_BYTES = 256 * 1024
"""From this size on, a file is on the volume."""


class MessageFiles:
    """Files by kind and name.

    Args:
        directory: Where small files are.
        large_directory: Where large files are, on another file system. None: with the small ones.
    """

    def __init__(self, directory: Path, large_directory: Path | None = None) -> None:
        self._directory = str(directory)
        self._large_directory = str(large_directory or directory)
        self._directories = list(dict.fromkeys((self._directory, self._large_directory)))
        self._created: set[str] = set()

    def write(self, kind: str, name: str, content: bytes) -> None:
        """Write a file, or replace it by one of about the same size: one name stays small, or large.

        A reader never sees part of the content; nothing waits for a disk.

        Raises:
            OSError: The file cannot be written, and nothing of it is left.
        """
        directory = self._large_directory if len(content) >= LARGE_BYTES else self._directory
        folder = f"{directory}/{kind}"
        if folder not in self._created:
            os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
            self._created.add(folder)
        write_atomically(f"{folder}/{name}", content, 0o600)

    def read(self, kind: str, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        for directory in self._directories:
            with (
                suppress(FileNotFoundError),
                open(f"{directory}/{kind}/{name}", "rb", buffering=0) as file,  # noqa: PTH123  pathlib costs more
            ):
                return file.readall()
        return None

    def remove(self, kind: str, name: str) -> None:
        """Remove a file, if it exists."""
        for directory in self._directories:
            with suppress(FileNotFoundError):
                os.unlink(f"{directory}/{kind}/{name}")  # noqa: PTH108
                return

    def names(self, kind: str) -> Iterator[str]:
        """Yield the names of all complete files of a kind, sorted."""
        files = chain.from_iterable(Path(directory, kind).glob("*") for directory in self._directories)
        yield from sorted(file.name for file in files if file.suffix != TEMPORARY_SUFFIX)
