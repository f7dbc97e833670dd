"""The arrays of replies in files instead of the ServerApp's memory.

A strategy holds the replies of a whole round, and Flower's `Strategy.start` holds those of the round before, too: with
N nodes, 2 x N models. Their large arrays are in files on disk, which cost page cache only, and are read when
the app asks for them. The files have no names, so the kernel frees them with the last array, or with the process.
"""

import json
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable
from logging import WARNING
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import SType
from flwr.common.logger import log
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_children_ids_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry
from numpy.typing import NDArray

from bouquet.flower.message_files import LARGE_BYTES

FILE_BYTES = 64 * 1024 * 1024
"""A file gets no more arrays from this size on. It is freed as a whole, so it should not mix many replies; and a
process can open some 1,000 files, so an array cannot have a file of its own."""


class _File:
    """A file without a name, to which arrays are appended."""

    def __init__(self, directory: Path) -> None:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self.size = 0

    def append(self, parts: Iterable[memoryview]) -> "_Section":
        """Append bytes; return where they are. After an error, what was written of them is overwritten."""
        start = end = -(-self.size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        for part in parts:
            rest = part
            while rest:  # one call writes at most 2 GiB
                written = os.pwrite(self._descriptor, rest, end)
                rest, end = rest[written:], end + written
        self.size = end
        return _Section(self, start, end - start)

    def map(self, start: int, length: int) -> mmap.mmap:
        """Return a read-only view of a part that begins at a page."""
        return mmap.mmap(self._descriptor, length, access=mmap.ACCESS_READ, offset=start)


class _Section:
    """A part of a file; keeps the file."""

    def __init__(self, file: _File, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length

    def map(self) -> mmap.mmap:
        """Return a read-only view."""
        return self._file.map(self._start, self._length)


class FileArray(Array):
    """Flower's `Array`, whose `data` is read from a file each time, unless the app has set it.

    Pickled or copied, it is Flower's `Array`, with its bytes.
    """

    __qualname__ = Array.__qualname__  # Flower writes it into objects, and finds the class of an object by it

    def __init__(self, dtype: str, shape: tuple[int, ...], stype: str, data: bytes | _Section) -> None:
        self.dtype, self.shape, self.stype = dtype, shape, stype
        self._content = data

    @property
    def data(self) -> bytes:
        """The bytes."""
        if isinstance(self._content, bytes):
            return self._content
        with self._content.map() as view:
            return view[:]

    @data.setter
    def data(self, content: bytes) -> None:
        self._content = content

    def numpy(self) -> NDArray[Any]:
        """Return the array as a new NumPy array; as Flower's does, but without a copy of the bytes."""
        if isinstance(self._content, bytes) or self.stype != SType.NUMPY:
            return super().numpy()
        with self._content.map() as view:
            # Pickled data could run any code.
            array: NDArray[Any] = np.load(view, allow_pickle=False)  # type: ignore[arg-type]  # it takes an mmap
        return array

    def described(self) -> Array:
        """Return Flower's `Array` with the same description and no bytes."""
        return Array(self.dtype, self.shape, self.stype, b"")

    def again(self) -> "FileArray":
        """Return another array with the same bytes."""
        return FileArray(self.dtype, self.shape, self.stype, self._content)

    def __eq__(self, other: object) -> bool:
        """Return whether both are arrays of the same bytes."""
        if not isinstance(other, Array):
            return NotImplemented
        return (self.dtype, self.shape, self.stype, self.data) == (other.dtype, other.shape, other.stype, other.data)

    __hash__ = None  # type: ignore[assignment]  # as Flower's: it can change

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], str, bytes]]:
        """Pickle and copy it as Flower's `Array`."""
        return Array, (self.dtype, self.shape, self.stype, self.data)


class ArrayFiles:
    """Inflates Flower's objects, but large arrays to `FileArray`, with their bytes in files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._file: weakref.ref[_File] | None = None

    def register(self) -> None:
        """Have Flower inflate arrays and records of arrays here, from now on and in this process."""
        for kind, inflate in ((Array, self._inflate_array), (ArrayRecord, self._inflate_record)):
            # Flower only calls the method `inflate` of what it finds there.
            inflatable_class_registry[kind.__qualname__] = SimpleNamespace(inflate=inflate)  # type: ignore[assignment]

    def _inflate_array(self, object_content: bytes, children: dict[str, InflatableObject] | None = None) -> Array:
        """Return an array from its object and the chunks of its bytes, as `Array.inflate` does."""
        chunks = {
            object_id: chunk.data for object_id, chunk in (children or {}).items() if isinstance(chunk, ArrayChunk)
        }
        if sum(map(len, chunks.values())) < LARGE_BYTES or len(chunks) != len(children or {}):
            return Array.inflate(object_content, children)
        empty: dict[str, InflatableObject] = {object_id: ArrayChunk(memoryview(b"")) for object_id in chunks}
        array = Array.inflate(object_content, empty)  # checks the ids
        ids = get_object_children_ids_from_object_content(object_content)
        order = json.loads(get_object_body(object_content, Array))["arraychunk_ids"]
        try:
            with self._lock:
                section = self._current_file().append(chunks[ids[index]] for index in order)
        except OSError as error:
            log(WARNING, "An array stays in memory: %s cannot be written (%s)", self._directory, error)
            return Array.inflate(object_content, children)
        return FileArray(array.dtype, array.shape, array.stype, section)

    def _inflate_record(
        self, object_content: bytes, children: dict[str, InflatableObject] | None = None
    ) -> ArrayRecord:
        """Return a record from its object and its arrays, as `ArrayRecord.inflate` does, which copies their bytes."""
        in_files = {object_id: array for object_id, array in (children or {}).items() if isinstance(array, FileArray)}
        described = {object_id: array.described() for object_id, array in in_files.items()}
        record = ArrayRecord.inflate(object_content, (children or {}) | described)
        for name, object_id in json.loads(get_object_body(object_content, ArrayRecord)).items():
            if object_id in in_files:
                record[name] = in_files[object_id].again()
        return record

    def _current_file(self) -> _File:
        file = self._file() if self._file else None  # weak: it goes with the last array, not with the next file
        if file is None or file.size >= FILE_BYTES:
            file = _File(self._directory)
            self._file = weakref.ref(file)
        return file
