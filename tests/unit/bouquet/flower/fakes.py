"""Fakes and real parts that several tests of the Flower seam share."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, Metadata, RecordDict
from flwr.app.constants import DEFAULT_TTL
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.superlink.federation import NoOpFederationManager

from bouquet.flower.link_state import LinkState, StateFactory
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.messages import with_message_id
from bouquet.flower.object_files import ObjectFilesFactory


def open_factories(path: Path) -> tuple[StateFactory, ObjectFilesFactory]:
    """The factories of a SuperLink's state and objects, with message files beside the database."""
    files = MessageFiles(path.parent / "messages")
    objects = ObjectFilesFactory(str(path), files)
    return StateFactory(str(path), NoOpFederationManager(), objects, files), objects


def open_state(path: Path) -> LinkState:
    """The state that a SuperLink has after its start."""
    return open_factories(path)[0].state()


class Caller:
    """A `grpc.ServicerContext` as far as a hold needs one."""

    def __init__(self, metadata: tuple[tuple[str, Any], ...] = ()) -> None:
        self.active = True
        self.callbacks: list[Callable[[], None]] = []
        self.metadata = metadata
        self.trailing: tuple[tuple[str, str], ...] = ()

    def is_active(self) -> bool:
        return self.active

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return self.active

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        return self.metadata

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.trailing

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.trailing = metadata

    def abort(self, code: object, details: str) -> None:
        raise ConnectionAbortedError(details)

    def leave(self) -> None:
        self.active = False
        for callback in self.callbacks:
            callback()


def after(delay: float, work: Callable[[], Any]) -> None:
    threading.Timer(delay, work).start()


class Traffic:
    """A run with one node, and the messages between them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = MessageFiles(path.parent / "messages")
        self.states, self.objects = open_factories(path)
        self.state = self.states.state()
        self.node_id = self.state.create_node("owner", "name", b"key", 30)
        self.state.activate_node(self.node_id, 30)
        self.run_id = self.state.create_run(
            "id", "1", "0", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )

    def restart(self) -> None:
        """Continue with what a new process finds."""
        self.states, self.objects = open_factories(self.path)
        self.state = self.states.state()

    def push(self, message: Message) -> tuple[str, dict[str, bytes]]:
        """Store a message without its objects: the session and the objects that are missing."""
        message = with_message_id(message)
        with no_object_id_recompute():
            objects = {name: content.deflate() for name, content in get_all_nested_objects(message).items()}
            session = self.state.start_session(self.run_id)
            bare = remove_content_from_message(message) if message.has_content() else message
            stored, missing = self.state.store_message_and_object_tree(bare, get_object_tree(message), session)
        assert stored
        return session, {name: objects[name] for name in missing}

    def send(self, number: int = 0) -> Message:
        """Push a message to the node, with all its objects."""
        message = self.message(number)
        session, objects = self.push(message)
        for name, content in objects.items():
            assert self.state.store_object(self.run_id, session, name, content)
        return message

    def message(self, number: int = 0) -> Message:
        metadata = Metadata(
            run_id=self.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=self.node_id,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=DEFAULT_TTL,
            message_type=MessageType.QUERY,
        )
        content = RecordDict({"config": ConfigRecord({"number": number})})
        return with_message_id(make_message(metadata, content))

    def reply(self, message: Message) -> Message:
        reply = with_message_id(Message(RecordDict({"config": ConfigRecord({"number": 100})}), reply_to=message))
        session, objects = self.push(reply)
        for name, content in objects.items():
            assert self.state.store_object(self.run_id, session, name, content)
        return reply

    def pull(self) -> list[str]:
        """Ids of the messages that are delivered to the node."""
        return [message.metadata.message_id for message in self.state.get_message_ins(self.node_id, limit=1)]

    def pull_replies(self, message: Message) -> list[str]:
        """Ids of the replies that are delivered to the ServerApp, as Flower delivers them."""
        replies = self.state.get_message_res({message.metadata.message_id})
        self.state.delete_messages({reply.metadata.reply_to_message_id for reply in replies})
        return [reply.metadata.message_id for reply in replies]

    def count_files(self) -> int:
        """How many message files there are."""
        return sum(1 for file in (self.path.parent / "messages").rglob("*") if file.is_file())
