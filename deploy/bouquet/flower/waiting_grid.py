"""A Grid that waits for replies by held calls instead of polling, and for a SuperLink that is restarted."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import Message
from flwr.proto import message_pb2
from flwr.proto.runtime_pb2_grpc import RuntimeStub
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.retry import wrap_stub
from flwr.superlink.grid import GrpcGrid

from bouquet.flower.channels import open_channel, with_quick_retries
from bouquet.flower.holding import HoldClientInterceptor, holding
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.task_queue import TaskToken

REPLY_HOLD_SECONDS = 5.0
"""How long our SuperLink may hold a pull while there is no reply."""
STOCK_POLL_SECONDS = 3.0
"""Time between two pulls from a stock SuperLink, which does not hold them."""
HELD_SECONDS = 0.5
"""An empty answer that took longer was held."""


@dataclass(frozen=True)
class _PulledObject:
    """An object that was read from a file, in the shape of a `PullObjectResponse`, which would copy the bytes twice."""

    object_content: bytes
    object_found: bool = True
    object_available: bool = True


class WaitingGrid(GrpcGrid):
    """A `GrpcGrid` that waits for a SuperLink that is restarted, and offers to wait for replies by held calls.

    Args:
        objects: Files of the SuperLink's objects, to read an object from its file instead of pulling it. None: no
            access to them.
        arguments: Those of `GrpcGrid`.
    """

    def __init__(self, *arguments: Any, objects: MessageFiles | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._objects = objects

    def _connect(self) -> None:
        """Connect to the Runtime API. Flower calls it before the first call, and after `close`."""
        self._channel = open_channel(
            self._addr,
            None if self._insecure else self._cert,
            [
                RuntimeVersionClientInterceptor(component_name="flwr-serverapp"),
                TaskToken(self._token),
                HoldClientInterceptor(),
            ],
        )
        self._grpc_stub = RuntimeStub(self._channel)
        wrap_stub(self._grpc_stub, with_quick_retries(self._retry_invoker))
        if self._objects:
            self._grpc_stub.PullObject = partial(_read_object, self._objects, self._grpc_stub.PullObject)

    def wait_for_replies(self, message_ids: Iterable[str], timeout: float | None) -> list[Message]:
        """Wait for the replies to messages, and return them in the order in which they came.

        Args:
            message_ids: The ids of messages that the SuperLink has accepted.
            timeout: Seconds to wait at most. None: until all replies are here.
        """
        waiting_for = set(message_ids)
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting_for:
            start = time.monotonic()
            left = REPLY_HOLD_SECONDS if deadline is None else deadline - start
            if left <= 0:
                break
            with holding(min(left, REPLY_HOLD_SECONDS)):
                received = list(self.pull_messages(waiting_for))
            replies += received
            waiting_for -= {message.metadata.reply_to_message_id for message in received}
            if not received and time.monotonic() - start < min(HELD_SECONDS, left):
                time.sleep(min(STOCK_POLL_SECONDS, left))
        return replies


def _read_object(
    objects: MessageFiles, pull: Callable[[message_pb2.PullObjectRequest], Any], request: message_pb2.PullObjectRequest
) -> Any:
    """Return an object from its file. If it has none (yet), the SuperLink answers."""
    content = objects.read("object", request.object_id)
    return pull(request) if content is None else _PulledObject(content)
