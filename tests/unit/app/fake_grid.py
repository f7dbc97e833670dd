"""A fleet in this process: a grid that calls the ClientApp directly for each message, as Flower would."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

FIRST_NODE = 100
_message_ids = itertools.count()

Answer = Callable[[Message, Context], Message | None]


def prepared(message: Message) -> Message:
    """Return the message with the metadata that a SuperLink adds."""
    message.metadata.__dict__.update(_run_id=1, _message_id=f"m{next(_message_ids)}", _src_node_id=1)
    return message


class FakeGrid(Grid):
    """Node `FIRST_NODE + k` holds partition k; `answer` is its ClientApp and returns None for no reply in time."""

    def __init__(self, answer: Answer, nodes: int, run_config: dict[str, Any], node_config: dict[str, Any]) -> None:
        self.answer = answer
        self.contexts = {
            FIRST_NODE + k: Context(
                run_id=1,
                node_id=FIRST_NODE + k,
                node_config={"partition-id": k, "num-partitions": nodes, **node_config},
                state=RecordDict(),
                run_config=run_config,
            )
            for k in range(nodes)
        }
        self.timeouts: list[float | None] = []
        self._answers: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        self.timeouts.append(timeout)
        replies = []
        for message in messages:
            prepared(message)
            try:
                reply = self.answer(message, self.contexts[message.metadata.dst_node_id])
            except Exception as error:  # as flwr's run_clientapp reports it
                reply = Message(Error(code=0, reason=f"{type(error)}:<'{error}'>"), reply_to=message)
            if reply is not None:
                replies.append(reply)
        return replies

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            for reply in self.send_and_receive([message]):
                self._answers[message.metadata.message_id] = reply
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._answers.pop(message_id) for message_id in message_ids if message_id in self._answers]

    def add(self, node_id: int, partition_id: int, num_partitions: int) -> None:
        """Add a node that joins the fleet."""
        some = next(iter(self.contexts.values()))
        node_config = some.node_config | {"partition-id": partition_id, "num-partitions": num_partitions}
        self.contexts[node_id] = Context(1, node_id, node_config, RecordDict(), some.run_config)
