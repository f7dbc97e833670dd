"""Fakes and real parts that several tests of the Flower seam share."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.superlink.federation import NoOpFederationManager

from bouquet.flower.link_state import LinkState, Objects
from bouquet.flower.message_files import MessageFiles


def open_state(path: Path) -> LinkState:
    LinkState.spool = Objects.spool = MessageFiles(path.parent / "spool")
    objects = Objects(str(path))
    objects.initialize()
    state = LinkState(str(path), NoOpFederationManager(), objects)
    state.initialize()
    return state


class Caller:
    """A `grpc.ServicerContext` as far as a hold needs one."""

    def __init__(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.active = True
        self.callbacks: list[Callable[[], None]] = []
        self.metadata = metadata

    def is_active(self) -> bool:
        return self.active

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return self.active

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata

    def abort(self, code: object, details: str) -> None:
        raise ConnectionAbortedError(details)

    def leave(self) -> None:
        self.active = False
        for callback in self.callbacks:
            callback()


def after(delay: float, work: Callable[[], Any]) -> None:
    threading.Timer(delay, work).start()


class Traffic:
    """A run with one node, and the messages that go back and forth."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = open_state(path)
        self.node_id = self.state.create_node("owner", "name", b"key", 30)
        self.state.activate_node(self.node_id, 30)
        self.run_id = self.state.create_run(
            "id", "1", "0", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )

    def restart(self) -> None:
        """Go on with a state that has nothing but what the one before has left."""
        self.state = open_state(self.path)

    def push(self, message: Message) -> tuple[str, dict[str, bytes]]:
        """Store a message without its objects: the session and the objects that are missing."""
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
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
        content = RecordDict({"config": ConfigRecord({"number": number})})
        message = Message(content, self.node_id, MessageType.QUERY)
        message.metadata.__dict__.update(_run_id=self.run_id, _src_node_id=SUPERLINK_NODE_ID)
        return message

    def reply(self, message: Message) -> Message:
        reply = Message(RecordDict({"config": ConfigRecord({"number": 100})}), reply_to=message)
        session, objects = self.push(reply)
        for name, content in objects.items():
            assert self.state.store_object(self.run_id, session, name, content)
        return reply

    def pull(self) -> list[str]:
        """Ids of the messages that the node is given."""
        return [message.metadata.message_id for message in self.state.get_message_ins(self.node_id, limit=1)]

    def pull_replies(self, message: Message) -> list[str]:
        """Ids of the replies that the ServerApp is given, as Flower gives them."""
        replies = self.state.get_message_res({message.metadata.message_id})
        self.state.delete_messages({reply.metadata.reply_to_message_id for reply in replies})
        return [reply.metadata.message_id for reply in replies]

    def files(self) -> int:
        """How many files the spool has."""
        return sum(1 for file in (self.path.parent / "spool").rglob("*") if file.is_file())
