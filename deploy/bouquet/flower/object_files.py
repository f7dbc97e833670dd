"""Objects, the parts of messages, as files instead of rows of a database.

An object is a piece of a message's content, such as an array; its id is the hash of its bytes. A message is the root of
a tree of objects, and its own object is deleted when the receiver has confirmed the message.
"""

import json
from collections.abc import Callable

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_id, iterate_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore

from bouquet.flower.message_files import MessageFiles


class ObjectFiles(InMemoryObjectStore):
    """Flower's in-memory object store, which keeps the objects' bytes in files and can be read again after a crash.

    Memory has which objects there are, and which are still missing. Of the files, `object/<id>` is an object, and
    `tree/<id>` has the ids of a message's objects and of its run.

    Attributes:
        on_root_deleted: Called with the id of a message when its own object was deleted.
    """

    def __init__(self, files: MessageFiles) -> None:
        super().__init__()
        self.on_root_deleted: Callable[[str], None] = lambda root: None
        self._files = files
        self._roots: set[str] = set()

    def initialize(self) -> None:
        """Read the files that an earlier process has left; remove those that are damaged or belong to nothing."""
        for root in self._files.names("tree"):
            record = json.loads(self._files.read("tree", root) or b"")
            self._roots.add(root)
            super().preregister(record["run"], ObjectTree.FromString(bytes.fromhex(record["tree"])))
        for object_id in self._files.names("object"):
            content = self._files.read("object", object_id) or b""
            if object_id in self.store and get_object_id(content) == object_id:
                self.store[object_id].is_available = True
            else:
                self._files.remove("object", object_id)

    def has(self, object_id: str) -> bool:
        """Return whether an object has arrived."""
        entry = self.store.get(object_id)
        return entry is not None and entry.is_available

    def missing(self, root: str) -> set[str]:
        """Return the ids of a message's objects that have not arrived yet.

        Raises:
            NoObjectInStoreError: No such message was announced.
        """
        return {
            node.object_id for node in iterate_object_tree(self.get_object_tree(root)) if not self.has(node.object_id)
        }

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Announce the objects of a message, and return the ids of those that are missing."""
        with self.lock_store:
            missing = super().preregister(run_id, object_tree)
            if object_tree.object_id not in self._roots:
                self._roots.add(object_tree.object_id)
                record = {"run": run_id, "tree": object_tree.SerializeToString().hex()}
                self._files.write("tree", object_tree.object_id, json.dumps(record).encode())
        return missing

    def put(self, object_id: str, object_content: bytes) -> None:
        """Store an announced object, after checking that its bytes match its id; the bytes go to a file.

        Raises:
            OSError: The file cannot be written. The object stays missing.
        """
        if self.has(object_id):
            return
        super().put(object_id, object_content)
        with self.lock_store:
            if entry := self.store.get(object_id):
                try:
                    self._files.write("object", object_id, object_content)
                except OSError:
                    entry.is_available = False
                    raise
                finally:
                    entry.content = b""

    def get(self, object_id: str) -> bytes | None:
        """Return an object's bytes, empty while it is missing, or None if it was not announced."""
        with self.lock_store:
            return self._files.read("object", object_id) if self.has(object_id) else super().get(object_id)

    def delete(self, object_id: str) -> None:
        """Delete an object that nothing else contains, and then what it contains: Flower calls this method for each."""
        with self.lock_store:
            if object_id not in self.store:
                return
            super().delete(object_id)
            if object_id in self.store:  # another object contains it
                return
            self._files.remove("object", object_id)
            is_root = object_id in self._roots
            if is_root:
                self._roots.remove(object_id)
                self._files.remove("tree", object_id)
        if is_root:
            self.on_root_deleted(object_id)


class ObjectFilesFactory(ObjectStoreFactory):
    """Creates the SuperLink's one `ObjectFiles` on first use. Flower's servicers ask a factory for their store."""

    def __init__(self, database: str, files: MessageFiles) -> None:
        super().__init__(database)
        self.store_instance: ObjectFiles | None = None
        self._files = files

    def store(self) -> ObjectFiles:
        """Return the store; creates it, with what an earlier process has left, if necessary."""
        if self.store_instance is not None:
            return self.store_instance
        with self._store_lock:
            if self.store_instance is None:
                store = ObjectFiles(self._files)
                store.initialize()
                self.store_instance = store
            return self.store_instance
