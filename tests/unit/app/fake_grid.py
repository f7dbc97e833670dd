"""A fleet in this process: a grid that calls the ClientApp directly for each message, as Flower would."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from app import client_app, server_app

FIRST_NODE = 100
PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
DEFAULTS: dict[str, Any] = PROJECT["tool"]["flwr"]["app"]["config"]
_message_ids = itertools.count()

Answer = Callable[[Message, Context], Message]


def run_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the app's defaults for a small dataset, with changes: `batch_size=8` for `batch-size`."""
    small = {"dataset": str(folder), "num-server-rounds": 2, "batch-size": 8, "fraction-train": 1.0}
    return DEFAULTS | small | {key.replace("_", "-"): value for key, value in changes.items()}


def start(folder: Path, *, answer: Answer = client_app.app, nodes: int = 4, **changes: Any) -> None:
    """Run the ServerApp on a fleet in this process; its files are in the current folder."""
    config = run_config(folder, **changes)
    server_app.main(FakeGrid(answer, nodes, config), Context(77, 0, {}, RecordDict(), config))


def prepared(message: Message) -> Message:
    """Return the message with the metadata that a SuperLink adds."""
    message.metadata.__dict__.update(_run_id=1, _message_id=f"m{next(_message_ids)}", _src_node_id=1)
    return message


class FakeGrid(Grid):
    """Node `FIRST_NODE + k` holds partition k; `answer` is its ClientApp. Replies come in the order of partitions."""

    def __init__(self, answer: Answer, nodes: int, config: dict[str, Any]) -> None:
        self.answer = answer
        self.contexts = {
            FIRST_NODE + k: Context(
                1, FIRST_NODE + k, {"partition-id": k, "num-partitions": nodes}, RecordDict(), config
            )
            for k in range(nodes)
        }

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        replies = []
        for message in sorted(messages, key=lambda message: message.metadata.dst_node_id):
            prepared(message)
            try:
                replies.append(self.answer(message, self.contexts[message.metadata.dst_node_id]))
            except Exception as error:  # as flwr's run_clientapp reports it
                replies.append(Message(Error(code=0, reason=f"{type(error)}:<'{error}'>"), reply_to=message))
        return replies

    def _unused(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError

    run = property(_unused)
    set_run = create_message = push_messages = pull_messages = _unused
