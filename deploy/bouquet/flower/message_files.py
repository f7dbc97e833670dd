"""Files that outlive a SuperLink which is killed, for the one that is started anew in its place.

They lie on a tmpfs of the container, and are gone with it: what is meant to outlive the container is in the database.
A file is written aside and renamed, so that it is there whole or not at all; nothing waits for a disk.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class MessageFiles:
    """Small files by kind and name."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._made: set[str] = set()

    def write(self, kind: str, name: str, content: bytes) -> None:
        """Write a file, or replace it."""
        path = self._path(kind, name)
        aside = path + ".new"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            view = memoryview(content)
            while view:  # one call writes at most 2 GiB
                view = view[os.write(descriptor, view) :]
        except BaseException:
            os.unlink(aside)  # noqa: PTH108  this module is called with every message: pathlib costs more than the file
            raise
        finally:
            os.close(descriptor)
        os.rename(aside, path)  # noqa: PTH104

    def read(self, kind: str, name: str) -> bytes | None:
        """Return what a file holds; None if there is none."""
        try:
            with open(self._path(kind, name), "rb", buffering=0) as file:  # noqa: PTH123
                return file.read()
        except FileNotFoundError:
            return None

    def remove(self, kind: str, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(self._path(kind, name))  # noqa: PTH108

    def names(self, kind: str) -> Iterator[str]:
        """Names of all files of a kind."""
        folder = Path(self._directory, kind)
        yield from sorted(entry.name for entry in folder.glob("*") if entry.suffix != ".new")

    def _path(self, kind: str, name: str) -> str:
        folder = f"{self._directory}/{kind}"
        if folder not in self._made:
            os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
            self._made.add(folder)
        return f"{folder}/{name}"
