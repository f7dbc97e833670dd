"""Files that outlive a SuperLink process that crashes, for the process that replaces it.

They are on a tmpfs of the container and end with it: what must outlive the container is in the database.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bouquet.files import TEMPORARY_SUFFIX, write_atomically


class MessageFiles:
    """Small files by kind and name."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._created: set[str] = set()

    def write(self, kind: str, name: str, content: bytes) -> None:
        """Write a file, or replace it. A reader never sees part of the content; nothing waits for a disk.

        Raises:
            OSError: The file cannot be written, and nothing of it is left.
        """
        write_atomically(self._path(kind, name), content, 0o600)

    def read(self, kind: str, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        try:
            with open(self._path(kind, name), "rb", buffering=0) as file:  # noqa: PTH123  pathlib costs more than the file
                return file.read()
        except FileNotFoundError:
            return None

    def remove(self, kind: str, name: str) -> None:
        """Remove a file, if it exists."""
        with suppress(FileNotFoundError):
            os.unlink(self._path(kind, name))  # noqa: PTH108

    def names(self, kind: str) -> Iterator[str]:
        """Yield the names of all complete files of a kind, sorted."""
        folder = Path(self._directory, kind)
        yield from sorted(entry.name for entry in folder.glob("*") if entry.suffix != TEMPORARY_SUFFIX)

    def _path(self, kind: str, name: str) -> str:
        folder = f"{self._directory}/{kind}"
        if folder not in self._created:
            os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
            self._created.add(folder)
        return f"{folder}/{name}"
